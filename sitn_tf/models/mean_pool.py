"""The plain baseline: mean of each history's item vectors, then an MLP."""

import tensorflow as tf

from sitn_tf.config import Config
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.layers.mlp import beside, make_mlp
from sitn_tf.models.scorer import Encoded, History, Scorer


class MeanPool(Scorer):
    """MLP(concat(mean source item, mean target item, v)): no attention, no encoder."""

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.mlp = make_mlp(config.mlp.widths, 1, config.model.dropout)

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """The mean item vector of a history, `[B, D]`."""
        return {"mean": masked_mean(history.vectors, history.mask)}

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Every candidate sees the same two means."""
        means = [encoded[f"{domain}_mean"][:, None] for domain in self.items]
        users = beside(means, candidates)
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]
