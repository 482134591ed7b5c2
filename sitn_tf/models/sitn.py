"""Stage 2 of SITN: pre-trained encoders, target attention, MLP (Eq. 8)."""

import tensorflow as tf

from sitn_tf.config import ModelConfig
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys, MultiHeadAttention
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.scorer import Encoded, Scorer


class Sitn(Scorer):
    """MLP(concat(u_f^s, u_f^t, v)), u_f by the candidate's attention over each history."""

    def __init__(self, config: ModelConfig, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.attentions = {
            domain: MultiHeadAttention(config.embedding_dim, config.heads, f"{domain}_attention")
            if config.target_attention == "multi_head"
            else ActivationUnit(config.embedding_dim, name=f"{domain}_attention")
            for domain in self.domains
        }
        for attention in self.attentions.values():
            attention.build([None, None, config.embedding_dim])
        self.mlp = make_mlp(config.mlp, 1, config.dropout)

    def encode_domain(
        self, domain: str, items: tf.Tensor, mask: tf.Tensor, training: bool
    ) -> Encoded:
        """Encoded sequence of a domain, projected to the keys and values of attention."""
        encoded = self.domains[domain].sequence(items, mask, training=training)
        return self.attentions[domain].project(encoded, mask)._asdict()

    def score_items(self, encoded: Encoded, candidates: tf.Tensor, training: bool) -> tf.Tensor:
        """Eq. 8 without the sigmoid."""
        users = [
            attention.attend(
                candidates, Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields))
            )
            for domain, attention in self.attentions.items()
        ]
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]
