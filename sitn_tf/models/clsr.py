"""Contrastive Long and Short-term interests for Recommendation.

Zheng et al., "Disentangling Long and Short-Term Interests for Recommendation", WWW 2022
(github.com/tsinghua-fib-lab/CLSR).

    q_l = E_l(user),  u_l = attention of q_l over e_1 .. e_T                 long-term interests
    q_s = GRU(e; from E_s(user)),  o_t = GRU'(e_t)
    u_s = attention of concat(q_s, v) over o_1 .. o_T                        short-term interests
    alpha = sigmoid(MLP(concat(GRU''(e), v, u_l, u_s)))
    logit = MLP(concat(alpha u_l + (1 - alpha) u_s, v))                      adaptive fusion
    L = L_click + beta L_con                       each interest near its own proxy

Both attentions are layers.attention.QueryUnit, L_con is layers/interest_contrast.py. As in the
authors' code, q_s starts at the user's vector, and the candidate is in the query of u_s, which so
differs by candidate, in L_con too: a mean over the candidates shown. From there are m, k, the
widths and how long a history must be. Where this differs:

- The authors' o_t come from a Time4LSTM, and their alpha sees the time since the last click. Here
  records hold no times of clicks; the GRU is an option of their code. States have D units.
- Users are hashed into `model.user_buckets` rows, which start at zero, so that a user who was never
  seen is an unknown one. They are read whatever model.request_features says; with `user` there, the
  last MLP sees a further vector of the user.
- L_click is Eq. 9 as of all models here, the paper's loss too. clsr.loss=softmax is that of the
  authors' code, over a request's candidates: probabilities are not calibrated then
  (Scorer.ranks_candidates). A request of several clicks has the mean of theirs.
- Their code subtracts 0.01 mean (E_l - E_s)^2 from the loss; the paper does not, nor does this.
- L_con is BPR, an option of their code, and beta is 0.01. Their triplets with 0.1, whose margin of
  1 in each dimension only far larger vectors keep, cost most of the AUC (BUILD_NOTES.md, "CLSR's
  contrast").
- Their MLPs have batch normalisation and all weights a penalty of 1e-6; here there is neither.
- u * v beside u and v unless mlp.products=false, as in all models here.
- The model of the paper knows one domain, and so does this; with model.use_source=true the source
  history is a second sequence with weights and user vectors of its own, whose u is one more input
  of the last MLP and whose contrast is added.
"""

import dataclasses

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import Keys, QueryUnit
from sitn_tf.layers.gru import Gru
from sitn_tf.layers.interest_contrast import interest_contrast
from sitn_tf.layers.mlp import beside, make_mlp
from sitn_tf.layers.request_features import RequestEmbedding
from sitn_tf.models.scorer import SHOWN, Encoded, Histories, History, Scorer

ENCODED = ("long", "intention", "state", *Keys._fields)
"""What `Interests.encode` gives."""


class Interests(tf_keras.layers.Layer):
    """Long- and short-term interests in one domain: a history and a user → u of each candidate.

    Attributes:
      long_user, short_user: E_l and E_s.
      intention, evolution, state: the GRUs of q_s, of o and of alpha.
      long_attention, short_attention: of u_l and u_s.
      fusion: alpha's MLP.
    """

    def __init__(self, config: Config, domain: str) -> None:
        super().__init__(name=f"{domain}_interests")
        dim, widths = config.model.embedding_dim, config.clsr.unit_widths
        user = dataclasses.replace(config.model, request_features=(schema.USER,))
        self.long_user = RequestEmbedding(user, f"{domain}_long_term")
        self.short_user = RequestEmbedding(user, f"{domain}_short_term")
        self.intention = Gru(dim, f"{domain}_intention")
        self.evolution = Gru(dim, f"{domain}_evolution")
        self.state = Gru(dim, f"{domain}_state")
        self.long_attention = QueryUnit(dim, dim, widths, f"{domain}_long_attention")
        self.short_attention = QueryUnit(dim, 2 * dim, widths, f"{domain}_short_attention")
        self.fusion = make_mlp(widths, 1, name=f"{domain}_fusion")
        for layer in (self.long_user, self.short_user):
            layer.build([None])
        for layer in (self.intention, self.evolution, self.state):
            layer.build([None, None, dim])
        for layer in (self.long_attention, self.short_attention):
            layer.build([None, None, dim])

    def encode(self, history: History, request: Batch) -> Encoded:
        """What candidates need: u_l, q_s, alpha's state, `[B, D]` each, and o as Keys."""
        vectors, mask = history.vectors, history.mask
        every = mask[:, None]
        intention = self.intention.last_states(vectors, every, self.short_user(request))
        return {
            "long": self.long_attention(self.long_user(request), vectors, mask)[:, 0],
            "intention": intention[:, 0],
            "state": self.state.last_states(vectors, every)[:, 0],
            **self.short_attention.project(self.evolution(vectors, mask), mask)._asdict(),
        }

    def of_candidates(self, encoded: Encoded, candidates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What `encode` gave and candidates `[B, C, D]` → u and u_s, `[B, C, D]` each."""
        of_user = [encoded[part][:, None] for part in ("long", "intention", "state")]
        long, intention, state = beside(of_user, candidates)
        queries = tf.concat([intention, candidates], axis=-1)
        keys = Keys(*(encoded[part] for part in Keys._fields))
        short = self.short_attention.attend(queries, keys)
        alpha = tf.sigmoid(self.fusion(tf.concat([state, candidates, long, short], axis=-1)))
        return alpha * long + (1.0 - alpha) * short, short


class Clsr(Scorer):
    """MLP(concat(u, v)), u between a user's long- and short-term interests.

    Attributes:
      interests: by domain.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.interests = {domain: Interests(config, domain) for domain in self.items}
        self.mlp = make_mlp(config.mlp.widths, 1, config.model.dropout)
        self.ranks_candidates = config.clsr.loss == "softmax"

    @property
    def request_inputs(self) -> tuple[schema.Feature, ...]:
        """The user, whatever model.request_features says, and what these are read from."""
        return tuple(dict.fromkeys((*super().request_inputs, schema.USER_ID)))

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """A domain's `Interests.encode` as `<domain>_<what>`, and the request features, if any."""
        encoded = self.encode_request(histories, request)
        for domain, history in histories.items():
            parts = self.interests[domain].encode(history, request)
            encoded |= {f"{domain}_{what}": tensor for what, tensor in parts.items()}
        return encoded

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The MLP on u of each domain; in training, u_s is left in `encoded` for the contrast."""
        users = []
        for domain, interests in self.interests.items():
            own = {what: encoded[f"{domain}_{what}"] for what in ENCODED}
            user, short = interests.of_candidates(own, candidates)
            users.append(user)
            if training:
                encoded[f"{domain}_short"] = short
        return self.mlp(self.joined(users, encoded, candidates), training=training)[..., 0]

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """L_con by beta, summed over the domains."""
        own = self.config.clsr
        if not own.contrast_weight:
            return {}
        parts = [
            interest_contrast(
                encoded[f"{domain}_long"],
                encoded[f"{domain}_short"],
                history.vectors,
                history.mask,
                encoded[SHOWN],
                own,
            )
            for domain, history in histories.items()
        ]
        return {"interests": own.contrast_weight * tf.add_n(parts)}
