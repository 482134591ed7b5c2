"""SplitMix64's finish (Steele et al., 2014): 64-bit integers to well-mixed ones.

For NumPy and TensorFlow alike, which give the same numbers; it imports neither.
"""

from collections.abc import Callable
from typing import Any

GOLDEN = 0x9E3779B97F4A7C15
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


def finish(x: Any, right_shift: Callable[[Any, Any], Any], constant: Callable[[int], Any]) -> Any:
    """The rounds, without the step by GOLDEN that precedes them.

    Args:
      x: uint64 of any shape.
      right_shift: the operation on uint64.
      constant: an integer as a uint64 scalar of the same library.

    Returns:
      uint64 of the shape of `x`.
    """
    for shift, factor in _ROUNDS:
        x = (x ^ right_shift(x, constant(shift))) * constant(factor)
    return x ^ right_shift(x, constant(_LAST_SHIFT))
