"""Base of the models that see a request as fields, each with a vector and a linear weight."""

import dataclasses

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.layers.factorization import ItemWeights
from sitn_tf.layers.request_features import RequestEmbedding
from sitn_tf.models.scorer import Encoded, Histories, Scorer, with_lengths

CLICKED, SHOWN = 0, 1
"""Roles of an item, which has a linear weight in each; source items are clicked only."""


class FieldScorer(Scorer):
    """FM, Wide & Deep and DeepFM read the same fields, from embeddings that they share.

    Fields of the user are each request feature (with `model.request_features=user` the hashed
    user, the first field of the papers), and each history as a bag: the mean of its items, of
    which each is the sum of its id's vector and its side features'. Fields of the candidate are
    its id and each side feature, with title words as a bag. A history's items and the candidate
    have their vectors from one table, but linear weights of their own.

    All is float32 whatever `model.precision`, but for rows that are read rounded and for MLPs:
    a difference of sums of squares has no digits to lose.

    Attributes:
      item_weights: linear weights of items by domain.
    """

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.item_weights = {
            domain: ItemWeights(items, roles=2 if domain == schema.TARGET else 1)
            for domain, items in self.items.items()
        }
        for weights in self.item_weights.values():
            weights.build([None])
        self.request_weights = None
        if self.request_embedding is not None:
            one = dataclasses.replace(config.model, embedding_dim=1)
            self.request_weights = RequestEmbedding(one, "request_weights")
            self.request_weights.build([None])

    def kept_fields(self, domain: str) -> int:
        """How many vectors an item vector holds: of a source item only the sum is ever used."""
        return 1 + len(self.items[domain].table.side_features) if domain == schema.TARGET else 1

    def item_fields(self, domain: str, ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Ids `[U]` → vectors of their fields `[U, F, D]`, linear weights by role `[U, R]`."""
        real = tf.cast(ids != schema.PAD_ID, tf.float32)[:, None]
        fields = tf.cast(tf.stack(self.items[domain].fields(ids), axis=1), tf.float32)
        weights = tf.cast(tf.add_n(self.item_weights[domain].fields(ids)), tf.float32)
        return fields * real[..., None], weights * real

    def item_vectors(self, domain: str, ids: tf.Tensor) -> tf.Tensor:
        """Ids `[U]` → `[U, F D + R]` float32: vectors of the kept fields, then linear weights."""
        fields, weights = self.item_fields(domain, ids)
        if domain != schema.TARGET:
            fields = tf.reduce_sum(fields, axis=1, keepdims=True)
        width = self.kept_fields(domain) * self.config.model.embedding_dim
        return tf.concat([tf.reshape(fields, [-1, width]), weights], axis=-1)

    def parts(self, domain: str, vectors: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Item vectors `[..., W]` → kept fields `[..., F, D]`, what follows them `[..., R]`."""
        count, dim = self.kept_fields(domain), self.config.model.embedding_dim
        fields, rest = vectors[..., : count * dim], vectors[..., count * dim :]
        return tf.reshape(fields, tf.concat([tf.shape(fields)[:-1], [count, dim]], 0)), rest

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """The user's fields, `[B, U, D]`, and the sum of their linear weights, `[B]`."""
        bags = [
            self.parts(domain, masked_mean(history.vectors, history.mask))
            for domain, history in histories.items()
        ]
        vectors = [tf.reduce_sum(fields, axis=-2) for fields, _ in bags]
        weight = tf.add_n([weights[:, CLICKED] for _, weights in bags])
        fields = tf.stack(vectors, axis=1)
        if self.request_embedding is not None and self.request_weights is not None:
            request = with_lengths(request, histories)
            known = tf.cast(self.request_embedding(request), tf.float32)
            fields = tf.concat([known, fields], axis=1)
            of_request = tf.cast(self.request_weights(request), tf.float32)
            weight += tf.reduce_sum(of_request, axis=[1, 2])
        return {"fields": fields, "weight": weight}

    def together(self, encoded: Encoded, candidates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What `encode` gave and item vectors `[B, C, W]` → all fields and the linear term.

        Returns:
          `[B, C, N, D]`, the user's fields first, and `[B, C]`.
        """
        fields, weights = self.parts(schema.TARGET, candidates)
        users = tf.repeat(encoded["fields"][:, None], tf.shape(candidates)[1], axis=1)
        linear = encoded["weight"][:, None] + weights[..., SHOWN]
        return tf.concat([users, fields], axis=2), linear

    def side_by_side(self, fields: tf.Tensor) -> tf.Tensor:
        """`[B, C, N, D]` → `[B, C, N D]`, what a deep part sees."""
        of_user = len(self.config.model.request_features) + len(self.items)
        count = of_user + self.kept_fields(schema.TARGET)
        width = count * self.config.model.embedding_dim
        return tf.reshape(fields, tf.concat([tf.shape(fields)[:2], [width]], 0))
