"""What scorers that learn from both domains' clicks by one formula share."""

import abc
from typing import ClassVar

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.models.scorer import Encoded, Scorer


class JointScorer(Scorer):
    """Base of the scorers in which a candidate's domain says which weights score it.

    A subclass has `logits`.
    """

    learns_source: ClassVar[bool] = True

    @abc.abstractmethod
    def logits(self, domain: str, encoded: Encoded, candidates: tf.Tensor) -> tf.Tensor:
        """Encoded histories and vectors `[B, C, W]` of a domain's items → logits `[B, C]`."""

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """`logits` of the target."""
        return self.logits(schema.TARGET, encoded, candidates)

    def score_source(
        self, encoded: Encoded, candidates: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """`logits` of the source."""
        return self.logits(schema.SOURCE, encoded, candidates)
