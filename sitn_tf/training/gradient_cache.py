"""Gradients of a contrast over more rows than the encoders can hold at once."""

from collections.abc import Callable, Sequence

import tensorflow as tf

from sitn_tf.data import Batch
from sitn_tf.distributed.replicas import Gradient
from sitn_tf.layers import randomness


def cached_gradients(
    encode: Callable[[Batch], Sequence[tf.Tensor]],
    losses_of: Callable[[Sequence[tf.Tensor]], dict[str, tf.Tensor]],
    rows: Batch,
    parts: int,
    variables: Sequence[tf.Variable],
) -> tuple[dict[str, tf.Tensor], list[Gradient | None]]:
    """Exact gradients of a loss over all rows, with one part's activations in memory at a time.

    Rows are encoded part by part without a tape, the loss of all encoded rows is
    differentiated down to these, and each part is encoded once more to carry its gradient on
    to the variables: GradCache (Gao et al., "Scaling Deep Contrastive Learning Batch Size
    under Memory Limited Setup", 2021). Costs one more forward pass. Dropout draws masks for each
    part, the same in both passes.

    Args:
      encode: rows → tensors of as many rows; must give the same in both passes.
      losses_of: all rows' encoded tensors → losses, which may use variables of their own;
        "loss" is differentiated.
      rows: tensors of B rows each.
      parts: at most; some are empty where B is smaller.
      variables: what to differentiate by.

    Returns:
      The losses, and a gradient a variable, None where there is none.
    """
    count = tf.shape(next(iter(rows.values())))[0]
    bounds = [count * part // parts for part in range(parts + 1)]
    slices = [slice(bounds[part], bounds[part + 1]) for part in range(parts)]
    pieces = [{name: value[s] for name, value in rows.items()} for s in slices]

    def encode_part(part: int, piece: Batch) -> list[tf.Tensor]:
        with randomness.in_part(part):
            return list(encode(piece))

    encoded = [
        [tf.stop_gradient(tensor) for tensor in encode_part(part, piece)]
        for part, piece in enumerate(pieces)
    ]
    joined = [tf.concat(columns, axis=0) for columns in zip(*encoded, strict=True)]
    with tf.GradientTape() as tape:
        tape.watch(joined)
        losses = losses_of(joined)
    down = tape.gradient(losses["loss"], [*joined, *variables])
    cached = [
        tf.zeros_like(tensor) if gradient is None else gradient
        for tensor, gradient in zip(joined, down, strict=False)
    ]
    total: list[Gradient | None] = down[len(joined) :]
    for part, (piece, s) in enumerate(zip(pieces, slices, strict=True)):
        # Without an order between them, all parts would be in memory together.
        with tf.control_dependencies(
            [g for g in tf.nest.flatten(total, expand_composites=True) if g is not None]
        ):
            piece = {name: tf.identity(value) for name, value in piece.items()}
        with tf.GradientTape() as tape:
            again = encode_part(part, piece)
        of_piece = tape.gradient(again, variables, output_gradients=[c[s] for c in cached])
        total = [add(a, b) for a, b in zip(total, of_piece, strict=True)]
    return losses, total


def add(a: Gradient | None, b: Gradient | None) -> Gradient | None:
    """The sum of two gradients of one variable, sparse if both are."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tf.IndexedSlices) and isinstance(b, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.concat([a.values, b.values], axis=0),
            tf.concat([a.indices, b.indices], axis=0),
            a.dense_shape,
        )
    return tf.convert_to_tensor(a) + tf.convert_to_tensor(b)
