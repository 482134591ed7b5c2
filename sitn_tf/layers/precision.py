"""Mixed precision: layers made within `layers_in` compute in it and keep float32 weights."""

import contextlib
from collections.abc import Iterator

import tf_keras

LOSS_SCALE = {"float32": 1.0, "bfloat16": 1.0, "float16": 1024.0}
"""What a loss is multiplied by, and its gradients divided by: the smallest float16 is 6e-8."""


@contextlib.contextmanager
def layers_in(precision: str) -> Iterator[None]:
    """Keras layers made in this context compute in `precision` (ModelConfig.precision)."""
    before = tf_keras.mixed_precision.global_policy()
    name = precision if precision == "float32" else f"mixed_{precision}"
    tf_keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)
