"""Learning rates by step: linear warm-up, then constant, linear or cosine decay."""

import math
from typing import Any, Literal

import tensorflow as tf
import tf_keras


class WarmUpThenDecay(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to `peak` over `warmup_steps`, then falls to `final_share · peak`.

    With w warm-up steps and decay over d steps in all, step t = 0, 1, … has

        t < w:      peak · (t + 1) / (w + 1)
        otherwise:  peak · (f + (1 - f) · g(x)),  x = min((t - w) / (d - w), 1)

    where f is `final_share`, and g(x) = 1 (constant), 1 - x (linear) or (1 + cos πx) / 2
    (cosine; Loshchilov and Hutter, 2017).

    Args:
      peak: the highest rate.
      shape: of the decay.
      warmup_steps: w.
      decay_steps: d, warm-up included; not used by a constant rate.
      final_share: f, in [0, 1].
    """

    def __init__(
        self,
        peak: float,
        shape: Literal["constant", "linear", "cosine"] = "constant",
        warmup_steps: int = 0,
        decay_steps: int = 0,
        final_share: float = 0.0,
    ) -> None:
        super().__init__()
        if shape != "constant" and decay_steps <= warmup_steps:
            raise ValueError(f"decay_steps={decay_steps} is not above warmup_steps={warmup_steps}")
        self.peak = peak
        self.shape = shape
        self.warmup_steps = warmup_steps
        self.decay_steps = decay_steps
        self.final_share = final_share

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """Scalar integer → scalar float32."""
        t = tf.cast(step, tf.float32)
        rising = (t + 1.0) / (self.warmup_steps + 1.0)
        return self.peak * tf.where(t < self.warmup_steps, rising, self._share(t))

    def _share(self, t: tf.Tensor) -> tf.Tensor:
        if self.shape == "constant":
            return tf.ones_like(t)
        x = tf.minimum((t - self.warmup_steps) / (self.decay_steps - self.warmup_steps), 1.0)
        left = 1.0 - x if self.shape == "linear" else (1.0 + tf.cos(math.pi * x)) / 2.0
        return self.final_share + (1.0 - self.final_share) * left

    def get_config(self) -> dict[str, Any]:
        return {
            "peak": self.peak,
            "shape": self.shape,
            "warmup_steps": self.warmup_steps,
            "decay_steps": self.decay_steps,
            "final_share": self.final_share,
        }
