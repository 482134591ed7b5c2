"""What a training run would hold in memory and do, without doing it."""

import math
import pathlib

import tensorflow as tf

from sitn_tf import runs, schema
from sitn_tf.config import Config
from sitn_tf.training import race
from sitn_tf.training.stage import Stage, without
from sitn_tf.training.stage2 import handed_over_variables


def describe(config: Config, stage: str, data_dir: pathlib.Path, init: str) -> str:
    """The variables of a stage's model, memory, records and steps, as lines for people.

    Args:
      stage: schema.STAGE1 or schema.STAGE2.
      init: of stage 2: "none", or a stage 1 that it starts from.
    """
    made = Stage(stage, config, data_dir)
    model, settings = made.model, made.settings
    if stage == schema.STAGE1:
        trained = model.trained_variables()
    else:
        freeze = config.stage2.encoders == "freeze" and init != runs.NO_INIT
        known = (pathlib.Path(init) / runs.CONFIG_FILE).is_file()
        stage1 = runs.read_config(pathlib.Path(init)) if known else config
        frozen = handed_over_variables(model, stage1).learned if freeze else []
        trained = without(model.trainable_variables, frozen)
    raced = []
    if stage == schema.STAGE2 and config.stage2.race_steps and init != runs.NO_INIT:
        starts = ", ".join(race.every_start(config, init))
        raced = [f"first a race of {config.stage2.race_steps} steps each: {starts}"]
    made.optimizer.build(trained)
    weights, slots = _bytes(model.variables), _bytes(made.optimizer.variables)
    return "\n".join(
        [
            *_variables(model.variables, trained),
            f"parameters: {_count(trained):,} trained, "
            f"{_count(model.variables) - _count(trained):,} fixed",
            f"memory: {_size(weights)} of weights + {_size(slots)} of {settings.optimizer}'s slots "
            f"= {_size(weights + slots)} a replica, activations not counted",
            *raced,
            f"an epoch: {_known(made.records)} records in {_known(made.steps)} steps of "
            f"{settings.batch_size}; at most {settings.epochs} epochs",
            "dry run: nothing was written",
        ]
    )


def _variables(variables: list[tf.Variable], trained: list[tf.Variable]) -> list[str]:
    known = {id(variable) for variable in trained}
    width = max(len(variable.name) for variable in variables)
    return [
        f"{v.name:<{width}}  {'x'.join(map(str, v.shape)) or 'scalar':>16}  {v.dtype.name:<8}"
        f"  {_size(_bytes([v])):>10}  {'trained' if id(v) in known else 'fixed'}"
        for v in variables
    ]


def _count(variables: list[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _bytes(variables: list[tf.Variable]) -> int:
    return sum(math.prod(v.shape) * v.dtype.size for v in variables)


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.2f} GB"


def _known(number: int | None) -> str:
    return "an unknown number of" if number is None else f"{number:,}"
