"""A model that overrides every part of the contract: a factorization machine of sorts."""

import tensorflow as tf

from sitn_tf import config, schema
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.distributed.tables import rows_of
from sitn_tf.layers.drawn_rows import SpareReservedRows
from sitn_tf.layers.embedding import add_table
from sitn_tf.models.registry import SCORERS
from sitn_tf.models.scorer import Scorer

NAME = "widened"


class Widened(Scorer):
    """w_v + v . sum of both histories: items have a linear weight beside their vector."""

    def __init__(self, config, tables, max_history):
        super().__init__(config, tables, max_history)
        self.linear = {
            domain: add_table(self, f"{domain}_linear", items.table.size, 1, SpareReservedRows(1.0))
            for domain, items in self.items.items()
        }

    def item_vectors(self, domain, ids):
        vectors = super().item_vectors(domain, ids)
        real = tf.cast(ids != schema.PAD_ID, vectors.dtype)[:, None]
        weights = tf.cast(rows_of(self.linear[domain], ids), vectors.dtype)
        return tf.concat([vectors, weights * real], axis=-1)

    def encode(self, histories, request, training=False):
        users = [tf.reduce_sum(history.vectors, axis=1) for history in histories.values()]
        encoded = {"user": tf.add_n(users)}
        return encoded | {"source": users[0]} if training else encoded

    def score(self, encoded, candidates, training=False):
        matched = tf.reduce_sum(encoded["user"][:, None, :-1] * candidates[..., :-1], axis=-1)
        return matched + encoded["user"][:, None, -1] + candidates[..., -1]

    def auxiliary_losses(self, histories, encoded, inputs):
        """0.5 times the mean square of what `encode` gives in training alone."""
        rows = tf.reduce_mean(tf.square(encoded["source"]), axis=-1)
        count = global_sum(tf.cast(tf.size(rows), rows.dtype))
        return {"square": 0.5 * tf.reduce_sum(rows) / count}


def register(monkeypatch):
    """Lets a test name the model."""
    monkeypatch.setitem(SCORERS, NAME, Widened)
    monkeypatch.setitem(config.SECTIONS, NAME, ())
