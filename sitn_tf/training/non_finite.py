"""Where a number that is not finite comes from, found by running one batch again."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf
import tf_keras

from sitn_tf.data import Batch


def first_not_finite(
    model: tf_keras.Model,
    variables: Sequence[tf.Variable],
    losses: Callable[[], dict[str, tf.Tensor]],
    loss_scale: float = 1.0,
) -> str:
    """Names the first of: weights, outputs of layers, parts of the loss, gradients.

    Args:
      model: whose layers are watched.
      variables: whose gradients are.
      losses: the forward pass of the batch, run eagerly; "loss" is differentiated.
      loss_scale: as in the step (steps.make_step): with it a gradient of float16 may overflow that
        is finite without.
    """
    for variable in model.variables:
        if not _finite(variable):
            return f"the weights {variable.name}, before the step"
    with _watch_outputs(model) as bad_layers, tf.GradientTape() as tape:
        parts = losses()
        scaled = parts["loss"] * loss_scale
    if bad_layers:
        return f"the output of the layer {bad_layers[0]}"
    for name, part in parts.items():
        if not _finite(part):
            return f"{name}, though the output of every layer is finite"
    gradients = tape.gradient(scaled, list(variables))
    for variable, gradient in zip(variables, gradients, strict=True):
        if gradient is not None and not _finite(gradient):
            times = "" if loss_scale == 1 else f", of the loss times {loss_scale:g}"
            return f"the gradient of {variable.name}{times}"
    return "nothing when the batch is run again alone"


def save_batch(path: pathlib.Path, batch: Batch) -> None:
    """Writes a batch's features to an .npz file, by their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: value.numpy() for name, value in batch.items()}
    # Bytes of fixed width, unlike objects, are read back without pickle.
    fixed = {n: a.astype(np.bytes_) if a.dtype.hasobject else a for n, a in arrays.items()}
    np.savez(path, **fixed)


@contextlib.contextmanager
def _watch_outputs(model: tf_keras.Model) -> Iterator[list[str]]:
    """Collects the paths of layers with an output that is not finite, in order of completion."""
    bad_layers: list[str] = []
    watched = _layers(model)
    for path, layer in watched.items():
        object.__setattr__(layer, "call", _watched(layer.call, path, bad_layers))
    try:
        yield bad_layers
    finally:
        for layer in watched.values():
            object.__delattr__(layer, "call")


def _layers(model: tf_keras.Model) -> dict[str, tf_keras.layers.Layer]:
    """The layers within a model by the attributes that lead to them, each once."""
    layers = model._flatten(
        predicate=lambda part: isinstance(part, tf_keras.layers.Layer), with_path=True
    )
    named: dict[int, tuple[str, tf_keras.layers.Layer]] = {}
    # Keras keeps layers in private lists too; the public attribute says more.
    for path, layer in sorted(layers, key=lambda pair: any(str(p)[0] == "_" for p in pair[0])):
        if layer is not model:
            named.setdefault(id(layer), (".".join(map(str, path)), layer))
    return dict(named.values())


def _watched(
    call: Callable[..., object], path: str, bad_layers: list[str]
) -> Callable[..., object]:
    def watched(*inputs: object, **options: object) -> object:
        outputs = call(*inputs, **options)
        if not all(_finite(output) for output in tf.nest.flatten(outputs)):
            bad_layers.append(path)
        return outputs

    return watched


def _finite(value: tf.Tensor | tf.Variable | tf.IndexedSlices) -> bool:
    value = value.values if isinstance(value, tf.IndexedSlices) else value
    if not value.dtype.is_floating:
        return True
    return bool(tf.reduce_all(tf.math.is_finite(value)))
