"""Stage 2 of SITN: pre-trained encoders, target attention, MLP (Eq. 8)."""

import tensorflow as tf

from sitn_tf.config import Config
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys, MultiHeadAttention
from sitn_tf.layers.encoder import make_encoders
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.scorer import Encoded, History, Scorer


class Sitn(Scorer):
    """MLP(concat(u_f^s, u_f^t, v)), u_f by the candidate's attention over each history.

    Attributes:
      sequences: sequence encoders by domain.
    """

    takes_over = ("items", "sequences")

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        shared, dim = config.model, config.model.embedding_dim
        self.sequences = make_encoders(config.encoder, dim, max_history, shared.dropout, self.items)
        self.attentions = {
            domain: MultiHeadAttention(dim, config.encoder.heads, f"{domain}_attention")
            if config.sitn.target_attention == "multi_head"
            else ActivationUnit(dim, name=f"{domain}_attention")
            for domain in self.items
        }
        for attention in self.attentions.values():
            attention.build([None, None, dim])
        self.mlp = make_mlp(config.mlp.widths, 1, shared.dropout)

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """Encoded sequence of a domain, projected to the keys and values of attention."""
        encoded = self.sequences[domain](*history, training=training)
        return self.attentions[domain].project(encoded, history.mask)._asdict()

    def users(self, encoded: Encoded, candidates: tf.Tensor) -> list[tf.Tensor]:
        """What the candidates see of the histories, u_f of each domain: `[B, C, D]` each."""
        return [
            attention.attend(
                candidates, Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields))
            )
            for domain, attention in self.attentions.items()
        ]

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 8 without the sigmoid."""
        users = self.users(encoded, candidates)
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]
