"""When a request is made, by whom and after what → vectors beside the histories.

They are model.request_features. Lengths of histories and times since the last click count by powers
of two.
"""

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.data import Batch
from sitn_tf.distributed.tables import rows_of
from sitn_tf.layers.click_ages import HOUR_SECONDS
from sitn_tf.layers.embedding import add_table
from sitn_tf.sections import ModelConfig

HOURS = 24
WEEKDAYS = 7
DAY_SECONDS = 24 * HOUR_SECONDS
FIRST_WEEKDAY = 3
"""1970-01-01 was a Thursday; weeks begin on Monday."""

BITS = 63
"""Of an int64 that is not negative."""
POWERS = [2**bit for bit in range(BITS)]

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
            schema.IDLE: 1 + BITS,
            **dict.fromkeys(schema.LENGTH_OF_DOMAIN.values(), 1 + BITS),
        }
        self.tables = {
            feature: add_table(self, feature, 1 + rows[feature], self.config.embedding_dim, "zeros")
            for feature in self.config.request_features
        }
        super().build(input_shape)

    def call(self, inputs: Batch) -> tf.Tensor:
        """Vectors of F features in the order of the configuration.

        Args:
          inputs: `request_time` and `history_time` `[B]` int64, Unix seconds, and `user_id` `[B]`
            string, as far as ModelConfig.request_inputs names them, and `source_length` and
            `target_length` `[B]` int64; others are not read.

        Returns:
          `[B, F, D]`.
        """
        parts = [
            rows_of(self.tables[feature], self._row(feature, inputs))
            for feature in self.config.request_features
        ]
        return tf.cast(tf.stack(parts, axis=1), self.compute_dtype)

    def _row(self, feature: str, inputs: Batch) -> tf.Tensor:
        values = [inputs[read.name] for read in schema.INPUTS_OF_REQUEST_FEATURE[feature]]
        if feature == schema.HOUR:
            return hour_row(*values)
        if feature == schema.WEEKDAY:
            return weekday_row(*values)
        if feature == schema.USER:
            return user_row(values[0], self.config.user_buckets)
        if feature == schema.IDLE:
            return idle_row(*values)
        return power_row(inputs[feature])


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


def idle_row(history_time: tf.Tensor, time: tf.Tensor) -> tf.Tensor:
    """`[B]` int64 Unix seconds twice → `[B]` int64, `power_row` of the seconds between them.

    Not known where a time is not positive, or the request is before what it comes after. The newest
    click may be one of a history that the model does not see.
    """
    known = (history_time > 0) & (time > 0)
    return power_row(tf.where(known, time - history_time, -1))


def power_row(value: tf.Tensor) -> tf.Tensor:
    """`[B]` int64 → `[B]` int64: 1 for 0, 2 for 1, 3 for 2 and 3, 4 for 4 to 7; to 64.

    What is negative is not known.
    """
    bits = tf.cast(value[:, None] >= tf.constant(POWERS, tf.int64), tf.int64)
    return _known(value >= 0, tf.reduce_sum(bits, axis=1))


def _known(known: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    return tf.where(known, 1 + value, tf.constant(UNKNOWN, tf.int64))
