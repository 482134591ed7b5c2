"""What a finished run ended with, to be compared bit by bit with another's."""

import json
import pathlib

import numpy as np
import tensorflow as tf

from sitn_tf import runs


def assert_same_outcome(run: pathlib.Path, expected: pathlib.Path) -> None:
    """Fails unless both runs ended with the same bits and the same history, seconds apart.

    Who evaluates the validation split says more of it than training.
    """
    for kind in (runs.BEST, runs.LAST):
        ours, theirs = _tensors(run / kind), _tensors(expected / kind)
        assert set(ours) == set(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=f"{kind} {name}")
    assert _history(run) == _history(expected)
    ours, theirs = (
        _without_seconds(runs.read_json(run_dir / runs.METRICS_FILE, {})["validation"])
        for run_dir in (run, expected)
    )
    assert {name: ours[name] for name in theirs} == theirs


def _tensors(directory):
    reader = tf.train.load_checkpoint(str(directory))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    [progress] = [name for name in values if name.startswith("progress")] or [None]
    if progress:
        state = json.loads(values.pop(progress))
        state["history"] = [_without_seconds(entry) for entry in state["history"]]
        values["progress"] = json.dumps(_without_seconds(state))
    values.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    return values


def _history(run_dir):
    return [_without_seconds(entry) for entry in runs.read_json(run_dir / runs.HISTORY_FILE, None)]


def _without_seconds(entry):
    return {name: value for name, value in entry.items() if name != "seconds"}
