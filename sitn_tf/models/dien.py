"""Deep Interest Evolution Network: how interests move towards the candidate.

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019
(github.com/mouna99/dien).

    h_t = GRU(e_t)                                   interest extractor
    L_aux: h_t knows e_{t+1} from another item       (layers/next_click.py)
    a_t = softmax_t(h_t W v)                         attention
    h'_t = AUGRU(h_t, a_t)                           interest evolution
    logit = MLP(concat(h'_T, v)),  L = L_click + alpha L_aux

Where this differs:

- L_aux is a mean over steps, not over users of sums over steps: alpha then means the same for
  short and long histories. The authors' code has the mean over all places of a padded batch.
  Its score is the paper's inner product; their code has a network of 100 and 50 sigmoids behind
  batch normalisation instead. States therefore have D units.
- Attention is the paper's bilinear form; their code has DIN's unit with a softmax, which sees a
  linear layer and PReLU of the candidate.
- The gates are the paper's (layers/gru.py). Their code multiplies the share of h that a GRU keeps
  by 1 - a: where a is 0 it still forgets as much as a GRU, where the paper's state stays.
- What stands against a click is drawn from the batch's other histories, and where it is the click
  itself it does not count; the authors draw from all reviews until it is another item.
- Hidden layers of the MLP have Dice, as in their code (dien.mlp_activation), and see h'_T * v
  beside the parts unless mlp.products=false; their code has the user's vector, the sum of the
  history, and that sum times v.
- The model of the paper knows one domain, and so does this; with model.use_source=true the source
  history is a second sequence with weights of its own.
"""

import functools

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import masked_softmax
from sitn_tf.layers.dice import DiceMlp
from sitn_tf.layers.embedding import look_up
from sitn_tf.layers.gru import Gru
from sitn_tf.layers.next_click import items_of_others, next_click_loss
from sitn_tf.models.scorer import SHOWN, Encoded, Histories, History, Scorer

DRAWS = {schema.SOURCE: 1 << 20, schema.TARGET: (1 << 20) + 1}
"""Who draws in a step, beyond any number of a dropout layer."""


class Dien(Scorer):
    """MLP(concat(h'^s, h'^t, v)), h' the last interest state of a history for the candidate.

    Attributes:
      extractors: the GRU of each domain.
      evolutions: the AUGRU of each domain.
      relevance: W of the attention by domain, `[D, D]`.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        dim = config.model.embedding_dim
        self.extractors = {domain: Gru(dim, f"{domain}_extractor") for domain in self.items}
        self.evolutions = {domain: Gru(dim, f"{domain}_evolution") for domain in self.items}
        for gru in (*self.extractors.values(), *self.evolutions.values()):
            gru.build([None, None, dim])
        self.relevance = {
            domain: self.add_weight(
                f"{domain}_relevance", shape=(dim, dim), initializer="glorot_uniform"
            )
            for domain in self.items
        }
        self.mlp = DiceMlp(config.mlp.widths, 1, config.dien.mlp_activation, config.model.dropout)

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """The interest states of a history, `[B, T, D]`, once for all candidates."""
        return {
            "states": self.extractors[domain](history.vectors, history.mask),
            "mask": history.mask,
        }

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The MLP on the state that each candidate's AUGRU ends with.

        This is the costly part: a loop of as many steps as the longest history has items, each a
        product of `[B C, D]` states and `[D, 3 D]` weights. All else of the AUGRU, its inputs and
        the GRU below it, is once a request.
        """
        users = [
            self._evolved(
                domain, encoded[f"{domain}_states"], encoded[f"{domain}_mask"], candidates
            )
            for domain in self.items
        ]
        joined = self.joined(users, encoded, candidates)
        return self.mlp(joined, encoded.get(SHOWN), training=training)[..., 0]

    def _evolved(
        self, domain: str, states: tf.Tensor, mask: tf.Tensor, candidates: tf.Tensor
    ) -> tf.Tensor:
        """Interest states `[B, T, D]` → the last of each candidate's AUGRU, `[B, C, D]`."""
        # Users that were encoded apart come padded to the longest history of all.
        places = 1 + tf.range(tf.shape(mask)[1])
        longest = tf.reduce_max(tf.concat([[0], tf.reshape(tf.where(mask, places, 0), [-1])], 0))
        states, mask = states[:, :longest], mask[:, :longest]
        weights = tf.cast(self.relevance[domain], states.dtype)
        logits = tf.matmul(candidates, tf.matmul(states, weights), transpose_b=True)
        return self.evolutions[domain].last_states(states, masked_softmax(logits, mask[:, None]))

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """L_aux by alpha, summed over the domains."""
        weight = self.config.dien.auxiliary_weight
        if not weight:
            return {}
        parts = []
        for domain, history in histories.items():
            ids = inputs[schema.HISTORY_OF_DOMAIN[domain].name]
            others = items_of_others(ids, DRAWS[domain])
            (against,) = look_up(functools.partial(self.item_vectors, domain), others)
            before = tf.pad(history.mask[:, :-1], [[0, 0], [1, 0]])[:, : tf.shape(ids)[1]]
            differs = (others != ids) & (others != schema.PAD_ID)
            states = encoded[f"{domain}_states"]
            follows = history.mask & before
            parts.append(next_click_loss(states, history.vectors, against, follows, differs))
        return {"next_click": weight * tf.add_n(parts)}
