"""Mixed Interest Network: interests of three kinds, and how much each counts for a candidate.

Ouyang et al., "MiNet: Mixed Interest Network for Cross-Domain Click-Through Rate Prediction",
CIKM 2020 (github.com/oywtece/minet).

    p_u                                                          long-term interest, both domains'
    a_s = sum_i alpha_i r_si,  alpha = softmax_i(h_s^T ReLU(W_s [r_si || q || p_u || M r_si * q]))
    a_t = sum_j beta_j r_tj,   beta  = softmax_j(h_t^T ReLU(W_t [r_tj || q || p_u || r_tj * q]))
    v_k = exp(g_k^T ReLU(V_k [q || p_u || a_s || a_t]) + b_k)            k = u, s, t; not normalised
    logit_target = MLP([q || v_u p_u || v_s a_s || v_t a_t])
    logit_source = MLP([q_s || p_u])
    L = L_target + gamma L_source                                gamma: joint.source_weight

r and q are item vectors of D numbers, one for all features of an item, where the paper has them
side by side. The equations are those of the authors' code and of a public transcription of the
paper, which agree; the printed paper was not at hand. Where this differs:

- p_u is the vectors of model.request_features, the paper's user profile as far as records have one:
  with `user` the hashed user, learned from both domains. By default there is none, and two
  interests.
- Without a profile the source's candidate would be scored by itself alone. It sees its short-term
  interest too: an attention of the same form, without M, over the source history, beside q_s and
  p_u; minet.source_interest=false is the paper's source task.
- Padding has no part in a softmax; in the authors' code it has, with the score of a zero vector.
- M is one matrix; in the authors' code the product of two thinner ones.
- b_k starts at 0 for all k; in the authors' code b_u starts at 1 for Amazon's data.
- What an MLP sees has the products of each interest with the candidate too unless
  mlp.products=false, as that of every model that is compared here.
"""

from typing import ClassVar

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.item_attention import ItemAttention
from sitn_tf.layers.mlp import beside, join, make_mlp
from sitn_tf.models.scorer import Encoded, History, Scorer

USER = "user"


class Minet(Scorer):
    """MLP of a candidate and weighed interests, on the clicks of both domains.

    Attributes:
      attentions: item-level, of target candidates over each domain's history.
      source_attention: of source candidates over the source history; None without it.
      gates: interest-level, log v by interest.
    """

    learns_source: ClassVar[bool] = True

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        dim, width = config.model.embedding_dim, config.minet.attention_width
        user = dim * len(config.model.request_features)

        def attention(name: str, transfer: bool) -> ItemAttention:
            made = ItemAttention(dim, user, width, transfer, f"{name}_attention")
            made.build([None, None, dim])
            return made

        self.attentions = {
            domain: attention(domain, transfer=domain != schema.TARGET) for domain in self.items
        }
        self.source_attention = None
        if config.minet.source_interest:
            self.source_attention = attention("own_source", transfer=False)
        self.gates = {
            interest: _gate(width, f"{interest}_gate")
            for interest in ([USER] if user else []) + list(self.items)
        }
        self.mlp = make_mlp(config.mlp.widths, 1, config.model.dropout)
        self.source_mlp = make_mlp(config.mlp.widths, 1, config.model.dropout, "source_mlp")

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """A history's item vectors, `[B, T, D]`, and their mask."""
        return {"items": history.vectors, "mask": history.mask}

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The MLP on the candidate and its weighed interests."""
        user = beside(self.request_parts(encoded), candidates)
        interests = [(USER, part) for part in user] + [
            (domain, self._attend(attention, domain, encoded, candidates))
            for domain, attention in self.attentions.items()
        ]
        everything = tf.concat([candidates, *(part for _, part in interests)], axis=-1)
        weights = {
            interest: tf.exp(tf.cast(gate(everything), tf.float32))
            for interest, gate in self.gates.items()
        }
        weighed = [tf.cast(weights[interest], part.dtype) * part for interest, part in interests]
        seen = join(weighed, candidates, self.config.mlp.products)
        return self.mlp(seen, training=training)[..., 0]

    def score_source(
        self, encoded: Encoded, candidates: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """The source's own MLP on the candidate, the user and the source's own interest, if any."""
        interests = beside(self.request_parts(encoded), candidates)
        if self.source_attention is not None:
            found = self._attend(self.source_attention, schema.SOURCE, encoded, candidates)
            interests = [*interests, found]
        seen = join(interests, candidates, self.config.mlp.products)
        return self.source_mlp(seen, training=training)[..., 0]

    def _attend(
        self, attention: ItemAttention, domain: str, encoded: Encoded, candidates: tf.Tensor
    ) -> tf.Tensor:
        items, mask = (encoded[f"{domain}_{what}"] for what in ("items", "mask"))
        return attention.attend(self.request_parts(encoded), candidates, items, mask)


def _gate(width: int, name: str) -> tf_keras.Sequential:
    """g^T ReLU(V x) + b: `[..., I]` → `[..., 1]`."""
    hidden = tf_keras.layers.Dense(width, activation="relu", use_bias=False)
    return tf_keras.Sequential([hidden, tf_keras.layers.Dense(1)], name=name)
