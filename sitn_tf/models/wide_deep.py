"""Wide & Deep (Cheng et al., "Wide & Deep Learning for Recommender Systems", DLRS 2016).

    logit = w_wide . [x, phi(x)] + w_deep . a^(l_f) + b                     (Eq. 3)
    phi_k(x) = prod_i x_i^c_ki                                              (Eq. 1)
    a^(l+1)  = ReLU(W^(l) a^(l) + b^(l))                                    (Eq. 2)

x are the fields of models/field_scorer.py, a^(0) their embeddings side by side. phi are the
paper's cross of installed and impression app: each distinct item among a history's last
`wide.recent_items` with the candidate, a binary feature a pair, hashed into `wide.buckets` weights
a domain. Wide and deep part are trained jointly.

Scoring sees item vectors and no ids, so an item's vector ends with its id, a column a binary digit
(`factorization.digits_of`): crosses are the same function of the same ids in training and serving,
and tables of 16 or 8 bits a number keep them.

Deviations from the paper, and why:
- The wide part is trained by the optimiser of the whole model unless `wide.optimizer=ftrl`, and
  by FTRL with L1 then (`wide.ftrl_l1`); `stage2.optimizer=adagrad` is the paper's choice for the
  deep part.
- Linear weights of the fields are in the wide part too, as its Section 3.1 describes; its Figure 4
  has the crosses alone.
- `deep.widths` are (128, 64) by default, as for all models that are compared here, not
  1024, 512 and 256; history bags stand for its single user features.

The model of the paper knows one domain, and so does this; with `model.use_source=true` the source
history is one more field and is crossed too. The order of a history says which of its items are
crossed, nothing else.
"""

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.factorization import HashedCrosses, digits_of, ids_of, most_recent
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.field_scorer import FieldScorer
from sitn_tf.models.scorer import Encoded, Histories


class WideDeep(FieldScorer):
    """Linear weights + crosses + MLP, whose last bias is that of the logit.

    Attributes:
      crosses: weights of crosses by domain of the history; empty without crosses.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.deep = make_mlp(config.deep.widths, 1, config.model.dropout, "deep")
        self.crosses = {
            domain: HashedCrosses(config.wide.buckets, f"{domain}_crosses")
            for domain in (self.items if config.wide.recent_items else ())
        }

    @property
    def ftrl_variables(self) -> list[tf.Variable]:
        """The wide part's: linear weights and crosses."""
        if self.config.wide.optimizer == "shared":
            return []
        layers: list[tf_keras.layers.Layer] = [*self.item_weights.values(), *self.crosses.values()]
        if self.request_weights is not None:
            layers.append(self.request_weights)
        return [variable for layer in layers for variable in layer.trainable_variables]

    def item_vectors(self, domain: str, ids: tf.Tensor) -> tf.Tensor:
        """Fields and linear weights as of the base, then the digits of the id."""
        vectors = super().item_vectors(domain, ids)
        if not self.crosses:
            return vectors
        digits = digits_of(ids, self.items[domain].table.size, vectors)
        return tf.concat([vectors, digits], axis=-1)

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """Fields and weight as of the base, and the ids to cross, `<domain>_recent` `[B, H]`."""
        encoded = super().encode(histories, request, training)
        for domain in self.crosses:
            ids = self._ids(domain, histories[domain].vectors)
            encoded[f"{domain}_recent"] = most_recent(ids, self.config.wide.recent_items)
        return encoded

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 3 without the sigmoid."""
        fields, linear = self.together(encoded, candidates)
        deep = self.deep(self.side_by_side(fields), training=training)[..., 0]
        logits = linear + tf.cast(deep, linear.dtype)
        if self.crosses:
            shown = self._ids(schema.TARGET, candidates)
            for domain, crosses in self.crosses.items():
                logits += crosses(shown, encoded[f"{domain}_recent"])
        return logits

    def _ids(self, domain: str, vectors: tf.Tensor) -> tf.Tensor:
        """Item vectors `[..., W]` → ids `[...]`."""
        _, rest = self.parts(domain, vectors)
        return ids_of(rest[..., self.item_weights[domain].dim :])
