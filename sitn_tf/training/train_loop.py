"""The training loop of both stages: epochs of steps, validation, early stopping, resume.

A step runs on every replica; gradients are summed over replicas, so a model's loss must
be its share of the global loss (sitn_tf/distributed/replicas.py). Checkpoints hold the whole state:
weights, optimiser, place in the data, running totals and history. What is random in a step
follows from its number. So the same command continues a run that was killed at any moment,
and ends with the very weights of one that was not (BUILD_NOTES.md, "Choices in
the training loop").
"""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf
import tqdm

from sitn_tf import runs, schema, whole_files
from sitn_tf.checkpoints import Checkpoints, restore_best
from sitn_tf.data import Batch
from sitn_tf.distributed.replicas import separate_replicas
from sitn_tf.errors import InputError
from sitn_tf.layers import randomness
from sitn_tf.layers.dropout import number_layers
from sitn_tf.layers.precision import LOSS_SCALE
from sitn_tf.optimizers import row_sparse
from sitn_tf.training import non_finite
from sitn_tf.training.progress import Progress
from sitn_tf.training.signals import StoppedError, StopRequest
from sitn_tf.training.stage import Stage
from sitn_tf.training.steps import GRADIENT_NORM, Gradients, Losses, Values, make_step, runner
from sitn_tf.training.tensorboard import EventWriter

CHECK_EVERY = 50
"""Steps between looks at the losses: reading them waits for the device."""


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train and how it is judged.

    Attributes:
      losses: (replica's batch, step) → scalars; "loss" is this replica's share to minimise.
      gradients: (replica's batch, step) → the same losses and the gradients of `variables`,
        where these are not a plain tape's.
      validate: → metrics by name.
      objective: the metric to maximise.
      undefined: what to do where the objective is not a number.
      variables: what is trained.
      judge_first: whether the untrained model counts as epoch 0.
    """

    losses: Callable[[Batch, tf.Tensor], Losses]
    validate: Callable[[], dict[str, float]]
    objective: str
    undefined: str
    variables: Sequence[tf.Variable]
    judge_first: bool = False
    gradients: Gradients | None = None


@dataclasses.dataclass(frozen=True)
class Loop:
    """How a run is kept and watched; of whole data, nothing here changes what it ends with.

    Attributes:
      checkpoint_steps: steps between checkpoints within an epoch; 0 for none by steps.
      checkpoint_minutes: the same by time; 0 for none by time.
      log_steps: steps between the losses that TensorBoard shows.
      overwrite: begin anew where there is a run, once its settings are found good.
      until_steps: steps after which to stop for the time being, at the end of an epoch and without
        finishing the run; 0: never.
      skip_corrupt: how many records to do without where shards are damaged.
    """

    checkpoint_steps: int = 0
    checkpoint_minutes: float = 10.0
    log_steps: int = 50
    overwrite: bool = False
    until_steps: int = 0
    skip_corrupt: int = 0


def fit(run_dir: pathlib.Path, stage: Stage, task: Task, loop: Loop) -> dict[str, Any]:
    """Trains until the objective stops rising; returns the best epoch's history entry.

    With `loop.until_steps` it stops behind the epoch that reaches them and leaves a run that
    another call goes on with. A run that is finished is not trained again: its best weights are
    restored.

    Writes checkpoints/last and checkpoints/best, history.json, history.csv, tensorboard/ and
    metrics.json, and leaves the best weights in the model.

    Raises:
      InputError: the loss is not finite, or no checkpoint of an earlier process can be read.
      StoppedError: SIGTERM or SIGINT came; the state is saved.
    """
    finished = runs.read_json(run_dir / runs.METRICS_FILE, None)
    if finished is not None:
        restore_best(run_dir, stage.model)
        return finished["validation"]
    return _Fit(run_dir, stage, task, loop).run()


class _Fit:
    """One call of `fit`."""

    def __init__(self, run_dir: pathlib.Path, stage: Stage, task: Task, loop: Loop) -> None:
        self.run_dir, self.stage, self.task, self.loop = run_dir, stage, task, loop
        self.model, self.optimizer = model, optimizer = stage.model, stage.optimizer
        with stage.strategy.scope():
            optimizer.build(task.variables)
        separate_replicas([*model.variables, *optimizer.variables])
        number_layers(model)
        self.progress = Progress(epoch=0 if task.judge_first else 1)
        self.last = Checkpoints(
            run_dir / runs.LAST, keep=2, model=model, optimizer=optimizer, progress=self.progress
        )
        # Two, since a process killed after saving a new best may not know of it when continued.
        self.best = Checkpoints(run_dir / runs.BEST, keep=2, model=model)
        self.step = runner(
            stage.strategy,
            make_step(
                stage.strategy,
                task.variables,
                optimizer,
                task.losses,
                task.gradients,
                stage.settings.clip_norm,
                LOSS_SCALE[stage.config.model.precision],
                stage.config.seed,
            ),
        )
        self.saved_at = time.monotonic()

    def run(self) -> dict[str, Any]:
        self._resume()
        settings, progress = self.stage.settings, self.progress
        with contextlib.ExitStack() as stack:
            self.stop = stack.enter_context(StopRequest())
            events = self.run_dir / runs.EVENTS
            self.train_events, self.validation_events = (
                stack.enter_context(EventWriter(events / name, progress.steps + 1))
                for name in ("train", "validation")
            )
            until = self.loop.until_steps or math.inf
            while (
                progress.epoch <= settings.epochs
                and (progress.batches or progress.steps < until)
                and not self._exhausted()
            ):
                if progress.epoch:
                    self._train_epoch()
                self._judge_epoch()
                self.stop.check()
        if self.loop.until_steps:
            return _best(progress.history, self.task.objective)
        return self._conclude()

    def _exhausted(self) -> bool:
        history = self.progress.history
        if not history or self.progress.steps < self.stage.settings.min_steps:
            return False
        best = _best(history, self.task.objective)
        return history[-1]["epoch"] - best["epoch"] >= self.stage.settings.patience

    def _resume(self) -> None:
        for checkpoints in (self.last, self.best):
            checkpoints.remove_leftovers()
        progress = self.progress
        if self.last.restore() is None:
            # What a step that is not finite is run again from.
            self._save()
            return
        print(
            f"continuing {self.run_dir} in epoch {progress.epoch} after {progress.batches} steps",
            flush=True,
        )
        runs.write_history(self.run_dir, progress.history)

    def _save(self) -> None:
        runs.check_there(self.run_dir)
        self.last.save(max(self.last.numbers(), default=-1) + 1)
        self.saved_at = time.monotonic()

    def _train_epoch(self) -> None:
        stage, progress = self.stage, self.progress
        started = time.monotonic() - progress.seconds
        waiting: list[tuple[int, Values]] = []
        with tqdm.tqdm(
            desc=f"epoch {progress.epoch}/{stage.settings.epochs}",
            total=stage.records,
            initial=progress.records,
            unit=" records",
            unit_scale=True,
            mininterval=1.0,
            leave=False,
        ) as bar:
            for batch in stage.batches(progress.epoch, progress.batches):
                rows = len(batch[schema.USER_ID.name])
                waiting.append((rows, self.step(batch)))
                bar.update(rows)
                save = self.stop.requested or self._save_is_due(len(waiting))
                if save or len(waiting) == CHECK_EVERY + self.step.ahead:
                    self._count(waiting, 0 if save else self.step.ahead)
                    progress.seconds = time.monotonic() - started
                    bar.set_postfix(loss=f"{progress.totals['loss'] / progress.batches:.4f}")
                if save:
                    self._save()
                    self.stop.check()
        self._count(waiting)
        progress.seconds = time.monotonic() - started
        if not progress.batches:
            raise InputError(
                "the training split holds no records", "build the data set from longer logs"
            )
        stage.check_read(progress.records)

    def _save_is_due(self, waiting: int) -> bool:
        every, minutes = self.loop.checkpoint_steps, self.loop.checkpoint_minutes
        if every and (self.progress.steps + waiting) % every == 0:
            return True
        return bool(minutes) and time.monotonic() - self.saved_at >= 60 * minutes

    def _count(self, waiting: list[tuple[int, Values]], left: int = 0) -> None:
        """Reads the losses of the steps that are under way, and takes them from the list.

        Args:
          left: how many of the last ones stay.
        """
        while len(waiting) > left:
            rows, values_of = waiting.pop(0)
            values = values_of()
            if not _is_finite(values):
                for _, others in waiting:
                    others()
                raise self._explain(values, len(waiting))
            self.progress.add(rows, values)
            if self.progress.steps % self.loop.log_steps == 0:
                rate = row_sparse.rate_at(self.optimizer, self.progress.steps - 1)
                tags = {f"step/{name}": value for name, value in values.items()}
                self.train_events.scalars(self.progress.steps, tags | {"step/learning_rate": rate})

    def _judge_epoch(self) -> None:
        progress, objective = self.progress, self.task.objective
        entry: dict[str, Any] = {"epoch": progress.epoch} | self._means()
        try:
            with self.stop.raising():
                judged = self.task.validate()
        except StoppedError:
            self._save()
            raise
        entry |= judged
        if not math.isfinite(entry[objective]):
            raise InputError(
                f"the validation split gives {objective}={entry[objective]}", self.task.undefined
            )
        progress.end_epoch(entry)
        if _best(progress.history, objective) is entry:
            self.best.save(entry["epoch"])
        self._save()
        runs.write_history(self.run_dir, progress.history)
        print(_describe(entry, objective), flush=True)
        for events, values in (
            (self.train_events, {k: v for k, v in entry.items() if k not in judged}),
            (self.validation_events, judged),
        ):
            events.scalars(progress.steps, {f"epoch/{k}": v for k, v in values.items()})
            events.flush()

    def _means(self) -> dict[str, float]:
        progress = self.progress
        if not progress.epoch:
            return {}
        means = {name: total / progress.batches for name, total in progress.totals.items()}
        return means | {
            "steps": progress.batches,
            "records": progress.records,
            "seconds": round(progress.seconds, 2),
        }

    def _explain(self, values: dict[str, float], behind: int) -> InputError:
        """Trains again from the last checkpoint up to a bad step: its story.

        Args:
          values: of the first one in the order of batches; those before it are counted.
          behind: steps of later batches that had begun.
        """
        epoch, batches = self.progress.epoch, self.progress.batches
        if self.step.at_once > 1:
            # It may have read weights that the step of a later batch had spoilt.
            began = batches + 1 + behind
            again = ((n, v) for n, v in self._again(epoch, began) if not _is_finite(v))
            spoilt = next(again, None)
            if spoilt is None:
                return self._side_by_side(values, epoch, batches + 1, began)
            batches, values = spoilt
        for _ in self._again(epoch, batches):
            pass
        [batch] = self.stage.batches(epoch, batches).take(1)
        path = self.run_dir / runs.NOT_FINITE_BATCH
        non_finite.save_batch(path, batch)
        step = tf.identity(self.optimizer.iterations)

        def losses() -> Losses:
            with randomness.at_step(self.stage.config.seed, step):
                return self.task.losses(batch, step)

        scale = LOSS_SCALE[self.stage.config.model.precision]
        first = non_finite.first_not_finite(self.model, self.task.variables, losses, scale)
        return InputError(
            f"the loss is {values['loss']} and the norm of its gradient {values[GRADIENT_NORM]} at "
            f"step {batches + 1} of epoch {epoch}, whose records are saved in {path}; the first "
            f"that is not finite is {first}",
            self._remedy(),
        )

    def _remedy(self, *more: str) -> str:
        """Against numbers that are not finite.

        Args:
          more: further ones.
        """
        section = self.stage.name
        rate = f"lower the learning rate ({section}.learning_rate=...)"
        precision = self.stage.config.model.precision
        if precision == "float16":
            # The norm that is checked is of the gradients before they are bound.
            first = ("give model.precision=bfloat16, which has float32's range", rate)
        else:
            first = (rate, f"bound the gradient ({section}.clip_norm=1)")
        *others, last = *first, *more
        return f"{', '.join(others)} or {last}"

    def _again(self, epoch: int, until: int) -> Iterator[tuple[int, dict[str, float]]]:
        """Takes an epoch's steps again from the last checkpoint, one after the other.

        Yields:
          The number of steps before each, and its losses.
        """
        self.last.restore()
        first = self.progress.batches
        for number, batch in enumerate(self.stage.batches(epoch, first).take(until - first), first):
            yield number, self.step(batch)()

    def _side_by_side(
        self, values: dict[str, float], epoch: int, step: int, last: int
    ) -> InputError:
        """What to say of a step that is finite when no other one is taken meanwhile."""
        return InputError(
            f"the loss is {values['loss']} and the norm of its gradient {values[GRADIENT_NORM]} "
            f"at about step {step} of epoch {epoch}, while {self.step.at_once} workers took steps "
            "side by side; one after the other, from the last checkpoint up to step "
            f"{last}, all are finite, so no batch alone is to blame",
            self._remedy("train with one worker"),
        )

    def _conclude(self) -> dict[str, Any]:
        history = self.progress.history
        chosen = _best(history, self.task.objective)
        runs.check_there(self.run_dir)
        self.best.mark(chosen["epoch"])
        restore_best(self.run_dir, self.model)
        whole_files.write_json(self.run_dir / runs.METRICS_FILE, {"validation": chosen})
        return chosen


def _is_finite(values: dict[str, float]) -> bool:
    """Whether a step's loss and gradients are."""
    return math.isfinite(values["loss"]) and math.isfinite(values[GRADIENT_NORM])


def _best(history: list[dict[str, Any]], objective: str) -> dict[str, Any]:
    return max(history, key=lambda entry: entry[objective])


def _describe(entry: dict[str, Any], objective: str) -> str:
    hidden = (objective, "epoch", "steps", "records")
    shown = [objective, *(k for k in entry if k not in hidden and "/" not in k)]
    line = f"epoch {entry['epoch']:>3}  " + "  ".join(f"{k} {entry[k]:.4g}" for k in shown)
    if entry.get("seconds"):
        line += f"  ({entry['records'] / entry['seconds']:,.0f} records/s)"
    return line
