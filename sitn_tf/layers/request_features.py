"""When a request is made and by whom → vectors beside the histories (model.request_features)."""

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.data import Batch
from sitn_tf.distributed.tables import rows_of
from sitn_tf.layers.embedding import add_table
from sitn_tf.sections import ModelConfig

HOURS = 24
WEEKDAYS = 7
HOUR_SECONDS = 3600
DAY_SECONDS = 24 * HOUR_SECONDS
FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday; weeks begin on Monday."""

UNKNOWN = 0
"""Row of what a request does not say; the known values follow it."""


class RequestEmbedding(tf_keras.layers.Layer):
    """A vector of each of a request's features, of which every table starts at zero.

    So a row that training never touches adds nothing to the MLP's input: a user, most of all,
    says something only by the clicks that were seen of that user or of the others who share
    the row. What is not known of a request has row 0.

    Args:
      config: D, the features and the rows that users share.
    """

    def __init__(self, config: ModelConfig, name: str = "request_features") -> None:
        super().__init__(name=name)
        self.config = config

    def build(self, input_shape: tf.TensorShape) -> None:
        rows = {
            schema.HOUR: HOURS,
            schema.WEEKDAY: WEEKDAYS,
            schema.USER: self.config.user_buckets,
        }
        self.tables = {
            feature: add_table(self, feature, 1 + rows[feature], self.config.embedding_dim, "zeros")
            for feature in self.config.request_features
        }
        super().build(input_shape)

    def call(self, inputs: Batch) -> tf.Tensor:
        """Vectors of F features in the order of the configuration.

        Args:
          inputs: `request_time` `[B]` int64, Unix seconds, and `user_id` `[B]` string, as far
            as ModelConfig.request_inputs names them; others are not read.

        Returns:
          `[B, F, D]`.
        """
        parts = [
            rows_of(self.tables[feature], self._row(feature, inputs))
            for feature in self.config.request_features
        ]
        return tf.cast(tf.stack(parts, axis=1), self.compute_dtype)

    def _row(self, feature: str, inputs: Batch) -> tf.Tensor:
        value = inputs[schema.INPUT_OF_REQUEST_FEATURE[feature].name]
        if feature == schema.HOUR:
            return hour_row(value)
        if feature == schema.WEEKDAY:
            return weekday_row(value)
        return user_row(value, self.config.user_buckets)


def hour_row(time: tf.Tensor) -> tf.Tensor:
    """`[B]` int64 Unix seconds → `[B]` int64, 1 + the hour of the day in UTC.

    Times that are not positive are not known.
    """
    return _known(time > 0, time // HOUR_SECONDS % HOURS)


def weekday_row(time: tf.Tensor) -> tf.Tensor:
    """`[B]` int64 Unix seconds → `[B]` int64: 1 on Mondays to 7 on Sundays, in UTC.

    Times that are not positive are not known.
    """
    return _known(time > 0, (time // DAY_SECONDS + FIRST_WEEKDAY) % WEEKDAYS)


def user_row(user: tf.Tensor, buckets: int) -> tf.Tensor:
    """`[B]` raw user ids → `[B]` int64, 1 + a hash below `buckets`.

    The hash (Fingerprint64) is the same on every machine. An empty id is not known.
    """
    return _known(user != "", tf.strings.to_hash_bucket_fast(user, buckets))


def _known(known: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.where(known, 1 + value, tf.constant(UNKNOWN, tf.int64))
