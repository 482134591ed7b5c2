"""Stage 2 of SITN: pre-trained encoders, target attention, MLP (Eq. 8)."""

import tensorflow as tf
import tf_keras

from sitn_tf import losses, schema
from sitn_tf.config import Config
from sitn_tf.data import Batch, has_both_histories, user_hash
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.attention import ActivationUnit, Keys, MultiHeadAttention
from sitn_tf.layers.contrast import InstanceToInstance, gather_instances
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.layers.encoder import make_encoders, pool
from sitn_tf.layers.match import match
from sitn_tf.layers.mlp import beside, make_mlp
from sitn_tf.models.scorer import Encoded, Histories, History, Scorer
from sitn_tf.sections import SitnConfig

INSTANCE = "instance"
CONTRASTED = "contrasted"
SEQUENCE = "sequence"

KEPT = "i2i"
"""Name of the loss of stage 1 that is kept beside the click loss."""

CLOSED = -2.0
"""Start of a gate's bias: u^s counts for 0.12 of itself until it earns more."""


class Sitn(Scorer):
    """MLP(concat(p^s, p^t, u_f^s, u_f^t, v)), u_f by the candidate's attention over each history.

    p, each encoded sequence's mean, are SEMI's and not in Eq. 8: `sitn.sequence_means`.

    Attributes:
      sequences: sequence encoders by domain.
      gate: `[B, C, 3 D]` → `[B, C, 1]`, of the source where `sitn.source_gate` asks for one.
      contrast_weight: of L_i2i beside the click loss, 0 until stage 2 sets it.
      match_weights: `[domains]`, of the cosines in the logit where `sitn.match` wants them there.
    """

    takes_over = ("items", "sequences")

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        shared, dim = config.model, config.model.embedding_dim
        self.options = self.options_of(config)
        self.sequences = make_encoders(config.encoder, dim, max_history, shared.dropout, self.items)
        self.attentions = {
            domain: MultiHeadAttention(dim, config.encoder.heads, f"{domain}_attention")
            if self.options.target_attention == "multi_head"
            else ActivationUnit(dim, name=f"{domain}_attention")
            for domain in self.items
        }
        for attention in self.attentions.values():
            attention.build([None, None, dim])
        self.mlp = make_mlp(config.mlp.widths, 1, shared.dropout)
        self.contrast_weight = 0.0
        self.i2i = InstanceToInstance(config.contrast, name="i2i")
        self.gate = None
        if self.options.source_gate and schema.SOURCE in self.items:
            closed = tf_keras.initializers.Constant(CLOSED)
            self.gate = tf_keras.layers.Dense(
                1, "sigmoid", bias_initializer=closed, name="source_gate"
            )
        self.match_weights = None
        if self.options.match == "logit":
            # From 0 the encoders would learn nothing of it.
            self.match_weights = self.add_weight("match", [len(self.items)], initializer="ones")

    @staticmethod
    def options_of(config: Config) -> SitnConfig:
        """The options of this scorer."""
        return config.sitn

    def encode_history(self, domain: str, history: History, training: bool) -> Encoded:
        """What `parts` makes of the encoded sequence of a domain."""
        encode = self.sequences[domain]
        encoded = encode(history.vectors, history.mask, history.ages, training=training)
        return self.parts(domain, encoded, history.mask, training)

    def parts(self, domain: str, encoded: tf.Tensor, mask: tf.Tensor, training: bool) -> Encoded:
        """An encoded sequence, projected to the keys and values of attention.

        With `sitn.sequence_means` also its mean, `[B, D]`. For a match also its instance (Eq. 2),
        `[B, D]` of length 1, zeros of an empty history; and in training that of the contrast, which
        is not of length 1 if sim is the dot product.
        """
        parts: Encoded = self.attentions[domain].project(encoded, mask)._asdict()
        if self.options.sequence_means:
            parts[SEQUENCE] = masked_mean(encoded, mask)
        matched, contrasted = self.options.match != "none", training and self.contrast_weight
        if not matched and not contrasted:
            return parts
        mean = pool(encoded, mask, unit=False)
        if matched:
            parts[INSTANCE] = losses.unit(mean)
        if contrasted:
            cosine = self.config.contrast.similarity == "cosine"
            parts[CONTRASTED] = losses.unit(mean) if cosine else mean
        return parts

    def auxiliary_losses(
        self, histories: Histories, encoded: Encoded, inputs: Batch
    ) -> dict[str, tf.Tensor]:
        """L_i2i (Eq. 3 and 4), the mean over the global batch's requests with both histories.

        Requests of one user are no negatives of each other.
        """
        if not self.contrast_weight:
            return {}
        valid = has_both_histories(inputs)
        instances = [encoded[f"{domain}_{CONTRASTED}"] for domain in self.items]
        rows = self.i2i(gather_instances(instances, user_hash(inputs), valid))
        weight = tf.cast(valid, rows.dtype)
        total = global_sum(tf.reduce_sum(weight))
        mean = tf.math.divide_no_nan(tf.reduce_sum(weight * rows), total)
        return {KEPT: self.contrast_weight * mean}

    def users(self, encoded: Encoded, candidates: tf.Tensor) -> list[tf.Tensor]:
        """What the candidates see of the histories, u_f of each domain: `[B, C, D]` each.

        With a gate, the source's is multiplied by sigmoid(w concat(u_f^s, u_f^t, v) + b). Means of
        the sequences, the same for each candidate, come before.
        """
        seen = [
            attention.attend(
                candidates, Keys(*(encoded[f"{domain}_{part}"] for part in Keys._fields))
            )
            for domain, attention in self.attentions.items()
        ]
        if self.gate is not None:
            source, *others = seen
            seen = [source * self.gate(tf.concat([*seen, candidates], axis=-1)), *others]
        if not self.options.sequence_means:
            return seen
        means = [encoded[f"{domain}_{SEQUENCE}"][:, None] for domain in self.attentions]
        return [*beside(means, candidates), *seen]

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 8 without the sigmoid; a match is a further part of its input, or added."""
        joined = self.joined(self.users(encoded, candidates), encoded, candidates)
        if self.options.match == "none":
            return self.mlp(joined, training=training)[..., 0]
        matched = match([encoded[f"{domain}_{INSTANCE}"] for domain in self.items], candidates)
        if self.match_weights is None:
            joined = tf.concat([joined, tf.cast(matched, joined.dtype)], axis=-1)
            return self.mlp(joined, training=training)[..., 0]
        logits = tf.cast(self.mlp(joined, training=training)[..., 0], tf.float32)
        return logits + tf.linalg.matvec(matched, tf.cast(self.match_weights, tf.float32))
