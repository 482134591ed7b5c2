"""Deep Interest Network (Zhou et al., KDD 2018): histories weighed by the candidate, no encoder."""

import tensorflow as tf

from sitn_tf.config import ModelConfig
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.scorer import Encoded, Scorer


class Din(Scorer):
    """MLP(concat(u^s, u^t, v)), u the item vectors of a history summed by DIN's unit.

    With `use_source=False` the model of its paper: the target history alone.
    """

    def __init__(self, config: ModelConfig, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.units = {
            domain: ActivationUnit(config.embedding_dim, name=f"{domain}_unit")
            for domain in self.domains
        }
        for unit in self.units.values():
            unit.build([None, None, config.embedding_dim])
        self.mlp = make_mlp(config.mlp, 1, config.dropout)

    def encode_domain(
        self, domain: str, items: tf.Tensor, mask: tf.Tensor, training: bool
    ) -> Encoded:
        """A history's item vectors as keys and values, as one head."""
        return self.units[domain].project(items, mask)._asdict()

    def score_items(self, encoded: Encoded, candidates: tf.Tensor, training: bool) -> tf.Tensor:
        """The MLP on what each candidate finds in the histories."""
        users = [
            unit.attend(candidates, Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields)))
            for domain, unit in self.units.items()
        ]
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]
