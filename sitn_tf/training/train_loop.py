"""The training loop of both stages: epochs of steps, validation, early stopping, resume.

A step runs on every replica; gradients are summed over replicas, so a model's loss must
be its share of the global loss (sitn_tf/distributed/replicas.py). Checkpoints hold the whole state:
weights, optimiser, place in the data, running totals and history. What is random in a step
follows from its number. So the same command continues a run that was killed at any moment,
and ends with the very weights of one that was not (BUILD_NOTES.md, "Training loop").
"""

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
import tqdm

from sitn_tf import runs, schema, whole_files
from sitn_tf.checkpoints import Checkpoints, restore_best
from sitn_tf.data import Batch
from sitn_tf.distributed.replicas import Gradient, separate_replicas, split_rows, sum_gradients
from sitn_tf.errors import InputError
from sitn_tf.layers import randomness
from sitn_tf.layers.dropout import number_layers
from sitn_tf.layers.precision import LOSS_SCALE
from sitn_tf.optimizers import clipping, row_sparse
from sitn_tf.training import non_finite
from sitn_tf.training.progress import Progress
from sitn_tf.training.signals import StoppedError, StopRequest
from sitn_tf.training.stage import Stage
from sitn_tf.training.tensorboard import EventWriter

CHECK_EVERY = 50
"""Steps between looks at the losses: reading them waits for the device."""

GRADIENT_NORM = "gradient_norm"

Losses = dict[str, tf.Tensor]
Gradients = Callable[[Batch, tf.Tensor], tuple[Losses, list[Gradient | None]]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train and how it is judged.

    Attributes:
      losses: (replica's batch, step) → scalars; "loss" is this replica's share to minimise.
      gradients: (replica's batch, step) → the same losses and the gradients of `variables`,
        where these are not a plain tape's.
      validate: → metrics by name.
      objective: the metric to maximise.
      variables: what is trained.
      judge_first: whether the untrained model counts as epoch 0.
    """

    losses: Callable[[Batch, tf.Tensor], Losses]
    validate: Callable[[], dict[str, float]]
    objective: str
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


def make_step(
    strategy: tf.distribute.Strategy,
    variables: Sequence[tf.Variable],
    optimizer: tf_keras.optimizers.Optimizer,
    losses: Callable[[Batch, tf.Tensor], Losses],
    gradients_of: Gradients | None = None,
    clip_norm: float = 0.0,
    loss_scale: float = 1.0,
    seed: int = 0,
) -> Callable[[Batch], Losses]:
    """One training step over all replicas, not traced yet.

    Args:
      gradients_of: see Task.gradients.
      clip_norm: bound of the gradients' global norm; 0 for none.
      loss_scale: keeps small gradients of float16 layers above zero on their way.
      seed: of what is random in a step.

    Returns:
      Distributed batch → losses summed over replicas, and the "gradient_norm" before clipping.
    """

    def on_replica(batch: Batch) -> Losses:
        with randomness.at_step(seed, optimizer.iterations):
            if gradients_of is not None:
                parts, gradients = gradients_of(batch, optimizer.iterations)
            else:
                with tf.GradientTape() as tape:
                    parts = losses(batch, optimizer.iterations)
                    scaled = parts["loss"] * loss_scale
                gradients = clipping.scale(tape.gradient(scaled, variables), 1.0 / loss_scale)
        gradients = clipping.with_distinct_rows(sum_gradients(gradients))
        norm = clipping.global_norm(gradients)
        optimizer.apply_distinct(clipping.clip(gradients, norm, clip_norm), variables)
        return parts | {GRADIENT_NORM: norm}

    def step(batch: Batch) -> Losses:
        parts = strategy.run(on_replica, args=(batch,))
        # Every replica has the norm of the whole gradient.
        whole = {GRADIENT_NORM: tf.distribute.ReduceOp.MEAN}
        return {
            name: strategy.reduce(whole.get(name, tf.distribute.ReduceOp.SUM), part, axis=None)
            for name, part in parts.items()
        }

    return step


def traced_once(step: Callable[[Batch], Losses]) -> Callable[[Batch], Losses]:
    """A graph of a step, traced for batches of any size by the first one.

    A graph for the first batch's very shapes would be optimised otherwise than one for any
    shapes and round otherwise, and a continued run meets another batch first.
    """
    graph: tf.types.experimental.PolymorphicFunction | None = None

    def traced(batch: Batch) -> Losses:
        nonlocal graph
        if graph is None:
            specs = {name: _of_any_size(tf.type_spec_from_value(x)) for name, x in batch.items()}
            graph = tf.function(step, input_signature=[specs])
        return graph(batch)

    return traced


def _of_any_size(spec: tf.TypeSpec) -> tf.TypeSpec:
    if isinstance(spec, tf.TensorSpec):
        return tf.TensorSpec([None] * spec.shape.rank, spec.dtype)
    return type(spec)(*map(_of_any_size, spec._value_specs))


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
        self.step = traced_once(
            make_step(
                stage.strategy,
                task.variables,
                optimizer,
                task.losses,
                task.gradients,
                stage.settings.clip_norm,
                LOSS_SCALE[stage.config.model.precision],
                stage.config.seed,
            )
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
        waiting: list[tuple[int, Losses]] = []
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
                waiting.append((rows, self.step(split_rows(self.stage.strategy, batch))))
                bar.update(rows)
                save = self.stop.requested or self._save_is_due(len(waiting))
                if save or len(waiting) == CHECK_EVERY:
                    self._count(waiting)
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

    def _count(self, waiting: list[tuple[int, Losses]]) -> None:
        """Reads the losses of the steps since the last call, and empties the list."""
        for rows, losses in waiting:
            values = {name: float(value) for name, value in losses.items()}
            if not math.isfinite(values["loss"]) or not math.isfinite(values[GRADIENT_NORM]):
                raise self._explain(values)
            self.progress.add(rows, values)
            if self.progress.steps % self.loop.log_steps == 0:
                rate = row_sparse.rate_at(self.optimizer, self.progress.steps - 1)
                tags = {f"step/{name}": value for name, value in values.items()}
                self.train_events.scalars(self.progress.steps, tags | {"step/learning_rate": rate})
        waiting.clear()

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
                f"the validation split gives {objective}={entry[objective]}",
                "it needs both clicked and unclicked candidates; check label_field, or build the "
                "data set with a larger validation_fraction",
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

    def _explain(self, values: dict[str, float]) -> InputError:
        """Trains again from the last checkpoint up to the step after those counted: its story."""
        epoch, batches = self.progress.epoch, self.progress.batches
        self.last.restore()
        rest = self.stage.batches(epoch, self.progress.batches)
        for earlier in rest.take(batches - self.progress.batches):
            self.step(split_rows(self.stage.strategy, earlier))
        [batch] = self.stage.batches(epoch, batches).take(1)
        path = self.run_dir / runs.NOT_FINITE_BATCH
        non_finite.save_batch(path, batch)
        step = tf.identity(self.optimizer.iterations)

        def losses() -> Losses:
            with randomness.at_step(self.stage.config.seed, step):
                return self.task.losses(batch, step)

        first = non_finite.first_not_finite(self.model, self.task.variables, losses)
        section = self.stage.name
        return InputError(
            f"the loss is {values['loss']} and the norm of its gradient {values[GRADIENT_NORM]} at "
            f"step {batches + 1} of epoch {epoch}, whose records are saved in {path}; the first "
            f"that is not finite is {first}",
            f"lower the learning rate ({section}.learning_rate=...) or bound the gradient "
            f"({section}.clip_norm=1)",
        )

    def _conclude(self) -> dict[str, Any]:
        history = self.progress.history
        chosen = _best(history, self.task.objective)
        runs.check_there(self.run_dir)
        self.best.mark(chosen["epoch"])
        restore_best(self.run_dir, self.model)
        whole_files.write_json(self.run_dir / runs.METRICS_FILE, {"validation": chosen})
        return chosen


def _best(history: list[dict[str, Any]], objective: str) -> dict[str, Any]:
    return max(history, key=lambda entry: entry[objective])


def _describe(entry: dict[str, Any], objective: str) -> str:
    hidden = (objective, "epoch", "steps", "records")
    shown = [objective, *(k for k in entry if k not in hidden and "/" not in k)]
    line = f"epoch {entry['epoch']:>3}  " + "  ".join(f"{k} {entry[k]:.4g}" for k in shown)
    if entry.get("seconds"):
        line += f"  ({entry['records'] / entry['seconds']:,.0f} records/s)"
    return line
