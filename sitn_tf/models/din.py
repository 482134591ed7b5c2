"""Deep Interest Network (Zhou et al., KDD 2018): histories weighed by the candidate, no encoder."""

import tensorflow as tf

from sitn_tf.config import Config
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.scorer import Encoded, History, Scorer


class Din(Scorer):
    """MLP(concat(u^s, u^t, v)), u the item vectors of a history summed by DIN's unit.

    With `use_source=False` the model of its paper: the target history alone.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        dim = config.model.embedding_dim
        self.units = {domain: ActivationUnit(dim, name=f"{domain}_unit") for domain in self.items}
        for unit in self.units.values():
            unit.build([None, None, dim])
        self.mlp = make_mlp(config.mlp.widths, 1, config.model.dropout)

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """A history's item vectors as keys and values, as one head."""
        return self.units[domain].project(*history)._asdict()

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The MLP on what each candidate finds in the histories."""
        users = [
            unit.attend(candidates, Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields)))
            for domain, unit in self.units.items()
        ]
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]
