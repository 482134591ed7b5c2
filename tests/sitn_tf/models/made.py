"""A model of either stage on a data set, from the same start each time."""

import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from sitn_tf import config, runs, schema
from tests.small_dataset import MAX_HISTORY


def made(make: Callable[..., Any], data_dir: pathlib.Path, *changes: str) -> Any:
    """`make` is make_scorer or make_pretrainer; `changes` are of the tiny preset."""
    chosen = config.override(config.tiny(), changes)
    tables = runs.read_tables(data_dir, schema.read_manifest(data_dir), chosen)
    tf.keras.utils.set_random_seed(2)
    return make(chosen, tables, MAX_HISTORY)
