"""What every stage-2 model is: histories encoded once a request, then any candidates."""

import abc

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import ModelConfig
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.mlp import join
from sitn_tf.layers.request_features import RequestEmbedding
from sitn_tf.models.domain import DomainEncoder

Encoded = dict[str, tf.Tensor]

REQUEST_FEATURES = "request_features"
"""Their vectors' name in what is encoded."""


class Scorer(tf_keras.Model, abc.ABC):
    """Base of the click scorers. Subclasses say how to encode histories and how to score.

    Args:
      config: sizes.
      tables: item tables by domain.
      max_history: longest history in a record.
    """

    def __init__(self, config: ModelConfig, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(name=config.name)
        self.config = config
        self.domains = {
            domain: DomainEncoder(tables[domain], config, max_history)
            for domain in schema.DOMAINS
            if domain == schema.TARGET or config.use_source
        }
        self.request_embedding = None
        if config.request_features:
            self.request_embedding = RequestEmbedding(config)
            self.request_embedding.build([None])

    @property
    def reads(self) -> tuple[schema.Feature, ...]:
        """The features of a stage-2 record that a score comes from."""
        return (
            schema.SOURCE_HISTORY,
            schema.TARGET_HISTORY,
            schema.CANDIDATES,
            *self.config.request_inputs,
        )

    @property
    def encoder_variables(self) -> list[tf.Variable]:
        """What stage 1 may have trained."""
        return [v for part in self.domains.values() for v in part.trainable_variables]

    @abc.abstractmethod
    def encode_domain(
        self, domain: str, items: tf.Tensor, mask: tf.Tensor, training: bool
    ) -> Encoded:
        """Item vectors `[B, T, D]` of a history, mask `[B, T]` → what candidates need of it."""

    @abc.abstractmethod
    def score_items(self, encoded: Encoded, candidates: tf.Tensor, training: bool) -> tf.Tensor:
        """Encoded histories and item vectors `[B, C, D]` → logits `[B, C]`."""

    def encode(
        self,
        source_history: tf.Tensor,
        target_history: tf.Tensor,
        request: Batch | None = None,
        training: bool = False,
    ) -> Encoded:
        """Ids `[B, S]` and `[B, T]`, 0 padded → tensors with B rows, keyed `<domain>_<what>`.

        Args:
          request: what the request features are read from (`encode_request`), for a model
            that has them.
        """
        histories = {schema.SOURCE: source_history, schema.TARGET: target_history}
        encoded = self.encode_request(request or {})
        for domain, encoder in self.domains.items():
            vectors = encoder.items(histories[domain])
            mask = histories[domain] != schema.PAD_ID
            encoded |= self._encode_named(domain, vectors, mask, training)
        return encoded

    def encode_request(self, inputs: Batch) -> Encoded:
        """ModelConfig.request_inputs by name, `[B]` each → `request_features` `[B, F, D]`.

        Nothing for a model without request features.
        """
        if self.request_embedding is None:
            return {}
        return {REQUEST_FEATURES: self.request_embedding(inputs)}

    def joined(self, users: list[tf.Tensor], encoded: Encoded, candidates: tf.Tensor) -> tf.Tensor:
        """Concat of Eq. 8, with the request features as further parts of the user.

        Args:
          users: what the candidates see of the histories, `[B, C, D]` each.
          encoded: has the request's vectors, if the model has any.
          candidates: item vectors `[B, C, D]`.

        Returns:
          `[B, C, I]`.
        """
        if self.request_embedding is not None:
            count = tf.shape(candidates)[1]
            parts = tf.repeat(encoded[REQUEST_FEATURES][:, :, None], count, axis=2)
            users = [*users, *tf.unstack(parts, len(self.config.request_features), axis=1)]
        return join(users, candidates, self.config.products)

    def score_encoded(
        self, encoded: Encoded, candidates: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """Candidate ids `[B, C]` → logits `[B, C]`; those of id 0 carry no meaning."""
        return self.score_items(
            encoded, self.domains[schema.TARGET].items(candidates), training=training
        )

    def call(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """What the model `reads` of schema.STAGE2_FEATURES → logits `[B, C]`.

        The same numbers as `score_encoded(encode(...))`; target items that are both in a
        history and candidates are embedded once.
        """
        encoded = self.encode_request(inputs)
        for domain, encoder in self.domains.items():
            history = inputs[schema.HISTORY_OF_DOMAIN[domain].name]
            if domain == schema.TARGET:
                vectors, candidates = encoder.items.lookup(history, inputs[schema.CANDIDATES.name])
            else:
                vectors = encoder.items(history)
            encoded |= self._encode_named(
                domain, vectors, history != schema.PAD_ID, training=training
            )
        return tf.cast(self.score_items(encoded, candidates, training=training), tf.float32)

    def _encode_named(
        self, domain: str, vectors: tf.Tensor, mask: tf.Tensor, training: bool
    ) -> Encoded:
        parts = self.encode_domain(domain, vectors, mask, training)
        return {f"{domain}_{what}": tensor for what, tensor in parts.items()}
