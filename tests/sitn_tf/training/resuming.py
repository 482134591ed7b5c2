"""What a finished run ended with, to be compared bit by bit with another's."""

import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from sitn_tf import runs


def outcome(run_dir: pathlib.Path) -> dict[str, Any]:
    """By name, the values of both checkpoints, the history and the metrics; seconds left out."""
    found: dict[str, Any] = {
        f"{kind} {name}": value
        for kind in (runs.BEST, runs.LAST)
        for name, value in _tensors(run_dir / kind).items()
    }
    metrics = runs.read_json(run_dir / runs.METRICS_FILE, {})
    history = runs.read_json(run_dir / runs.HISTORY_FILE, [])
    found["history"] = [_without_seconds(entry) for entry in history]
    found["validation"] = _without_seconds(metrics["validation"])
    return found


def assert_same_outcome(run: pathlib.Path, expected: pathlib.Path) -> None:
    """Fails unless both runs ended with the same bits and the same history, seconds apart."""
    ours, theirs = outcome(run), outcome(expected)
    assert set(ours) == set(theirs)
    for name in ours:
        np.testing.assert_equal(ours[name], theirs[name], err_msg=name)


def _tensors(directory: pathlib.Path) -> dict[str, Any]:
    reader = tf.train.load_checkpoint(str(directory))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    [progress] = [name for name in values if name.startswith("progress")] or [None]
    if progress:
        state = json.loads(values.pop(progress))
        state["history"] = [_without_seconds(entry) for entry in state["history"]]
        values["progress"] = json.dumps(_without_seconds(state))
    values.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    return values


def _without_seconds(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "seconds"}
