"""Starts of stage 2 on a short race → the one to go on from, by validation AUC.

What is offered by a stage 1 may gain or cost, depending on the labels and on what the domains have
in common, and so may the source history. So each start is trained as it would be anyhow, for some
steps, into a directory of its own:

<run>.race/config.json  run.json    what was asked for: the settings, and the stage 1 offered
<run>.race/race.json                results so far
<run>.race/<start>/                 a run of stage 2, see sitn_tf/runs.py

The winner's directory becomes the run directory by one rename and is trained to its end, to the
very bits that it would have had without a race; the others are removed. A race that was
interrupted goes on where it was.
"""

import dataclasses
import gc
import os
import pathlib
import shutil
import time
from typing import Any

import tensorflow as tf
import tf_keras

from sitn_tf import runs, schema, whole_files
from sitn_tf.config import Config, override, sections_of
from sitn_tf.errors import InputError
from sitn_tf.training import stage2
from sitn_tf.training.train_loop import Loop

STAGE1, SCRATCH, NO_SOURCE = "stage1", "scratch", "no_source"

SIMPLEST_FIRST = (NO_SOURCE, SCRATCH, STAGE1)
"""Of starts with the same AUC the first wins."""

RACE = "race"
"""The stage that a race's run.json names: it can't be taken for a run."""


@dataclasses.dataclass(frozen=True)
class Start:
    """What a start is trained with.

    Attributes:
      config: of its run.
      init: run directory of a stage 1, or "none".
    """

    config: Config
    init: str


def run(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    init: str,
    loop: Loop | None = None,
) -> dict[str, float]:
    """`stage2.run_stage2`, behind a race where `stage2.race_steps` and a stage 1 ask for one.

    Raises:
      InputError: as there; or what lies there is of another command.
      StoppedError: SIGTERM or SIGINT came; the race or the run is saved.
    """
    loop, given = loop or Loop(), Start(config, init)
    asked = bool(config.stage2.race_steps) and init != runs.NO_INIT
    # Other workers copy what is there before the first one changes it.
    _mean_over_workers(strategy, 0.0)
    if not loop.overwrite:
        _check(run_dir, init, asked)
    raced = None if loop.overwrite else runs.read_json(run_dir / runs.RACE_FILE, None)
    if raced is not None:
        winner = raced["winner"]
    elif asked and (loop.overwrite or not (run_dir / runs.RUN_FILE).is_file()):
        winner = _Race(config, data_dir, run_dir, strategy, init, loop).run()
    else:
        winner = None
    if winner is None:
        if loop.overwrite:
            shutil.rmtree(runs.race_of(run_dir), ignore_errors=True)
        return _train(given, data_dir, run_dir, strategy, loop)
    shutil.rmtree(runs.race_of(run_dir), ignore_errors=True)
    start = every_start(config, init).get(winner, given)
    onwards = dataclasses.replace(loop, overwrite=False)
    return _train(start, data_dir, run_dir, strategy, onwards)


def every_start(config: Config, init: str) -> dict[str, Start]:
    """The starts there are, by name, in the order in which they run.

    One without the source history keeps no contrast of both histories beside the click loss, and
    models that learn from both domains have none.
    """
    starts = {STAGE1: Start(config, init), SCRATCH: Start(config, runs.NO_INIT)}
    if config.model.use_source and "joint" not in sections_of(config.model.name):
        alone = override(config, ["model.use_source=false", "stage2.contrast_weight=0"])
        starts[NO_SOURCE] = Start(alone, runs.NO_INIT)
    return starts


def winner_of(auc: dict[str, float]) -> str:
    """The start with the highest AUC; of equal ones the simplest."""
    return max((name for name in SIMPLEST_FIRST if name in auc), key=auc.__getitem__)


def describe(raced: dict[str, Any]) -> str:
    """What a race.json says, as a table and a sentence for people."""
    lines = [f"{'start':<12}{'validation auc':>16}{'epochs':>8}{'seconds':>10}"]
    lines += [
        f"{name:<12}{start['auc']:>16.4f}{start['epochs']:>8}{start['seconds']:>10.1f}"
        for name, start in raced["starts"].items()
    ]
    winner, seconds = raced["winner"], raced["seconds"]
    dropped = seconds - raced["starts"][winner]["seconds"]
    lines.append(
        f"the race went to {winner}: training goes on from there. It took {seconds:.1f} s, "
        f"{dropped:.1f} s of them for starts that are dropped"
    )
    return "\n".join(lines)


class _Race:
    """One call of `run` with a race that is not decided yet."""

    def __init__(
        self,
        config: Config,
        data_dir: pathlib.Path,
        run_dir: pathlib.Path,
        strategy: tf.distribute.Strategy,
        init: str,
        loop: Loop,
    ) -> None:
        self.config, self.data_dir, self.run_dir = config, data_dir, run_dir
        self.strategy, self.init, self.loop = strategy, init, loop
        self.directory = runs.race_of(run_dir)

    def run(self) -> str | None:
        """Trains the starts, renames the winner's directory, and returns the winner.

        None where there is one start only.
        """
        offer = stage2.examine(self.config, self.data_dir, self.init)
        starts = every_start(self.config, self.init)
        if not offer.useful:
            del starts[STAGE1]
            if len(starts) == 1:
                return None
            print(f"{offer.too_little(self.config)}. It takes no part in the race")
        self._prepare()
        raced = runs.read_json(self.directory / runs.RACE_FILE, {"starts": {}})
        for name, start in starts.items():
            if "auc" not in raced["starts"].get(name, {}):
                self._run_start(name, start, raced)
        raced |= {
            "winner": winner_of({name: raced["starts"][name]["auc"] for name in starts}),
            "init": self.init,
            "init_hash": runs.read_info(self.directory).init_hash,
            "asked": self.config.used(),
            "lift": stage2.lift_as_json(offer.lift),
            "seconds": round(sum(start["seconds"] for start in raced["starts"].values()), 2),
        }
        winner = self.directory / raced["winner"]
        whole_files.write_json(winner / runs.RACE_FILE, raced)
        winner.rename(self.run_dir)
        print(describe(raced), flush=True)
        return str(raced["winner"])

    def _prepare(self) -> None:
        manifest = schema.read_manifest(self.data_dir)
        info = runs.info_of(RACE, self.data_dir, manifest, self.init)
        if self.loop.overwrite:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        elif self.run_dir.is_dir() and os.listdir(self.run_dir):
            raise InputError(
                f"{self.run_dir} holds files, but no run",
                "train into another directory, or give overwrite=True",
            )
        runs.prepare(self.directory, self.config, manifest, info, self.loop.overwrite)

    def _run_start(self, name: str, start: Start, raced: dict[str, Any]) -> None:
        """Trains a start and adds its result to `raced`; its time also where it is stopped."""
        steps = self.config.stage2.race_steps
        print(f"race: {name}, {steps} steps", flush=True)
        loop = dataclasses.replace(self.loop, overwrite=False, until_steps=steps)
        result = raced["starts"].setdefault(name, {"seconds": 0.0})
        before, began = result["seconds"], time.monotonic()
        try:
            best = _train(start, self.data_dir, self.directory / name, self.strategy, loop)
            history = runs.read_json(self.directory / name / runs.HISTORY_FILE, None)
            result["auc"] = _mean_over_workers(self.strategy, best["auc"])
            result["epochs"] = history[-1]["epoch"]
        finally:
            result["seconds"] = round(before + time.monotonic() - began, 2)
            whole_files.write_json(self.directory / runs.RACE_FILE, raced)
        # One model at a time: large tables of the last one would lie beside the next one's.
        gc.collect()


def _train(
    start: Start,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    loop: Loop,
) -> dict[str, float]:
    """Trains a start as if it were the first and only run of this process."""
    tf_keras.utils.set_random_seed(start.config.seed)
    return stage2.run_stage2(start.config, data_dir, run_dir, strategy, start.init, loop)


def _check(run_dir: pathlib.Path, init: str, asked: bool) -> None:
    """Raises InputError where a race of another command lies there; settings are compared later.

    Args:
      init: what is offered.
      asked: whether there is to be a race.
    """
    raced, race = runs.read_json(run_dir / runs.RACE_FILE, None), runs.race_of(run_dir)
    changed = []
    if raced is not None:
        changed = runs.changed_init(run_dir, raced["init"], raced.get("init_hash", ""), init)
    if changed:
        raise InputError(
            f"{run_dir} holds another run (there, here: {'; '.join(changed)})",
            "train into another directory, or give overwrite=True",
        )
    if raced is None and not asked and (race / runs.RUN_FILE).is_file():
        raise InputError(
            f"{race} holds a race that is not decided",
            "give its command again, train into another directory, or give overwrite=True",
        )


def _mean_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """A number averaged over all workers, who wait for each other here.

    Each validates by itself; only with the very same numbers do all decide the same.
    """
    if strategy.num_replicas_in_sync == 1:
        return value

    @tf.function
    def mean() -> tf.Tensor:
        own = strategy.run(lambda: tf.constant(value, tf.float64))
        return strategy.reduce(tf.distribute.ReduceOp.MEAN, own, axis=None)

    return float(mean())
