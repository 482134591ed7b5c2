"""Factorization machine (Rendle, "Factorization Machines", ICDM 2010), of degree 2.

    logit = w_0 + sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j            (Eq. 1)

with the pairs by Lemma 3.1 (layers/factorization.py) over the fields of models/field_scorer.py.

Only w_0, the linear terms, and pairs are there: with the user's sum S_u of field vectors and the
candidate's S_v, the logit is own(u) + own(v) + <S_u, S_v>, where own is the linear weights and
the pairs within. own(v) is folded into the item vector, so a served item is D + 2 numbers whatever
its side features, and a candidate costs one dot product.

Deviations from the paper, and why:
- A bag (a history, the words of a title) is one field, the mean of its vectors; the paper pairs
  the elements of a bag with each other too. Of a history such pairs say nothing of a candidate.
- A history's items have the factors of the target's candidates, not a second table of them:
  that halves memory, and stage 1 of another model can hand the item vectors over.
- The user is a field with `model.request_features=user` alone, as for every model here.
- Trained by Eq. 9 with the row-sparse optimisers, not by SGD or ALS with L2 regularisation;
  `stage2.row_decay` is what is nearest to the latter. `model.dropout` finds nothing to drop.

It sees the target alone, as such comparisons have it; with `model.use_source=true` the source
history is one more bag. The order of a history is not seen in either.
"""

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.factorization import pairwise
from sitn_tf.models.field_scorer import CLICKED, SHOWN, FieldScorer
from sitn_tf.models.scorer import Encoded, Histories


class Fm(FieldScorer):
    """own(u) + own(v) + <S_u, S_v>.

    Attributes:
      bias: w_0.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.bias = self.add_weight("bias", shape=(), initializer="zeros")

    def kept_fields(self, domain: str) -> int:
        """One: their sum."""
        return 1

    def item_vectors(self, domain: str, ids: tf.Tensor) -> tf.Tensor:
        """Ids `[U]` → `[U, D + R]`: the sum of the fields, w of being clicked, own(v)."""
        fields, weights = self.item_fields(domain, ids)
        columns = [tf.reduce_sum(fields, axis=1), weights[:, CLICKED, None]]
        if domain == schema.TARGET:
            columns.append((weights[:, SHOWN] + pairwise(fields))[:, None])
        return tf.concat(columns, axis=-1)

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """S_u `[B, D]` and w_0 + own(u) `[B]`."""
        encoded = super().encode(histories, request, training)
        own = tf.cast(self.bias, tf.float32) + encoded["weight"] + pairwise(encoded["fields"])
        return {"sum": tf.reduce_sum(encoded["fields"], axis=1), "own": own}

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 1 from its two halves."""
        fields, weights = self.parts(schema.TARGET, candidates)
        matched = tf.linalg.matvec(fields[:, :, 0], encoded["sum"])
        return encoded["own"][:, None] + weights[..., SHOWN] + matched
