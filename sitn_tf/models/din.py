"""Deep Interest Network: histories weighed by the candidate, no encoder.

Zhou et al., "Deep Interest Network for Click-Through Rate Prediction", KDD 2018
(github.com/zhougr1993/DeepInterestNetwork).

    u = sum_j a(e_j, v) e_j                      (Eq. 3; no softmax)
    a(e, v) = MLP(concat(v, e, v - e, v * e))    (Fig. 2, hidden width 36)
    logit = MLP(concat(u, v))

Hidden layers of both have Dice (Section 5.2; layers/dice.py). Where this differs:

- The "out product" of Fig. 2 is read as the authors' code reads it: difference and product by
  element. Their code divides the scores by sqrt(D) and passes them through a softmax; the paper
  says that they are not normalised, and so it is here.
- u * v beside u and v, as in their code since 2020, unless mlp.products=false.
- Only their code has batch normalisation of u and of the MLP's input, a linear layer on u, a bias
  an item, and in Dice a learned factor of the normalised s. Its unit has 80 and 40 sigmoids
  (din.unit_widths, din.unit_activation), its MLP as many, or Dice.
- The model of the paper knows one domain, and so does this; with model.use_source=true the source
  history is summed in the same way by a unit of its own.
- Mini-batch aware regularisation (Section 5.1) is off unless din.l2 is given: the paper uses it
  (0.01) for its 0.6 billion goods alone, and sees no overfitting with public data sets. It is of
  the id embeddings; those of brands, categories and words are few and have many clicks each. n_j
  is an item's clicks in the training period, not its appearances in samples, which no table counts.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.distributed.tables import may_be_cut, rows_of
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys
from sitn_tf.layers.dice import DiceMlp
from sitn_tf.layers.mini_batch_l2 import mini_batch_l2
from sitn_tf.models.scorer import SHOWN, Encoded, Histories, History, Scorer


def _clicks_of(table: ItemTable) -> Callable[[tf.Tensor], tf.Tensor]:
    """Ids `[U]` → their clicks in the training period, `[U]` float32.

    They are read of a table that parameter servers may share out: a constant would go to every
    worker as a whole. It is the data set's, and in no checkpoint.
    """
    name, values = f"{table.domain}_clicks", table.count.astype(np.float32)
    with may_be_cut():
        return functools.partial(rows_of, tf.Variable(values, trainable=False, name=name))


class Din(Scorer):
    """MLP(concat(u^s, u^t, v)), u the item vectors of a history summed by DIN's unit."""

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        dim, own = config.model.embedding_dim, config.din
        self.units = {
            domain: ActivationUnit(dim, own.unit_widths, own.unit_activation, name=f"{domain}_unit")
            for domain in self.items
        }
        for unit in self.units.values():
            unit.build([None, None, dim])
        self.mlp = DiceMlp(config.mlp.widths, 1, own.mlp_activation, config.model.dropout)
        self.clicks_of = {
            domain: _clicks_of(tables[domain]) for domain in (self.items if own.l2 else ())
        }

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """A history's item vectors as keys and values, as one head."""
        return self.units[domain].project(history.vectors, history.mask)._asdict()

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The MLP on what each candidate finds in the histories."""
        shown = encoded.get(SHOWN)
        users = [
            unit.attend(
                candidates,
                Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields)),
                shown,
                training,
            )
            for domain, unit in self.units.items()
        ]
        joined = self.joined(users, encoded, candidates)
        return self.mlp(joined, shown, training=training)[..., 0]

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """Mini-batch aware regularisation, if any."""
        if not self.config.din.l2:
            return {}
        parts = []
        for domain, items in self.items.items():
            ids = [inputs[schema.HISTORY_OF_DOMAIN[domain].name]]
            if domain == schema.TARGET:
                ids.append(inputs[schema.CANDIDATES.name])
            parts.append(mini_batch_l2(items.id_vectors, self.clicks_of[domain], ids))
        return {"l2": self.config.din.l2 * tf.add_n(parts)}
