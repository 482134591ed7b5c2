"""The training loop of both stages: epochs of steps, validation, early stopping, resume.

A step runs on every replica; gradients are summed over replicas, so a model's loss must
be its share of the global loss (sitn_tf/distribution.py). After each epoch the whole state
is saved; the same command continues an interrupted run from there.
"""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
import tqdm

from sitn_tf import runs
from sitn_tf.cli import UsageError
from sitn_tf.data import Batch
from sitn_tf.distribution import split_rows, sum_gradients
from sitn_tf.gradients import Gradient

CHECK_EVERY = 50
"""Steps between looks at the loss: reading it waits for the device."""

Losses = dict[str, tf.Tensor]
Gradients = Callable[[Batch, tf.Tensor], tuple[Losses, list[Gradient]]]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train and how it is judged.

    Attributes:
      batches: epoch number → one pass over the training data, in that epoch's order.
      losses: (replica's batch, step) → scalars; "loss" is this replica's share to minimise.
      gradients: (replica's batch, step) → the same losses and the gradients of `variables`,
        where these are not a plain tape's.
      validate: → metrics by name.
      objective: the metric to maximise.
      epochs: at most.
      patience: epochs without a better objective before it stops.
      judge_first: whether the untrained model counts as epoch 0.
      steps: of an epoch, where known: gives the time left.
      variables: what is trained; all that the model can train if None.
    """

    batches: Callable[[int], tf.data.Dataset]
    losses: Callable[[Batch, tf.Tensor], Losses]
    validate: Callable[[], dict[str, float]]
    objective: str
    epochs: int
    patience: int
    judge_first: bool = False
    steps: int | None = None
    gradients: Gradients | None = None
    variables: Sequence[tf.Variable] | None = None


def fit(
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    model: tf_keras.Model,
    optimizer: tf_keras.optimizers.Optimizer,
    task: Task,
) -> dict[str, Any]:
    """Trains until the objective stops rising; returns the best epoch's history entry.

    Writes checkpoints/last and checkpoints/best, history.json and metrics.json, and leaves
    the best weights in the model.

    Raises:
      UsageError: the loss is not finite.
    """
    finished = runs.read_json(run_dir / runs.METRICS_FILE, None)
    if finished is not None:
        print(f"{run_dir} is finished already; --overwrite trains it again")
        runs.restore_best(run_dir, model)
        return finished["validation"]
    epoch_done = tf.Variable(-1, dtype=tf.int64)
    last = _manager(run_dir / runs.LAST, keep=2, model=model, optimizer=optimizer, epoch=epoch_done)
    best = _manager(run_dir / runs.BEST, keep=1, model=model)
    variables = model.trainable_variables if task.variables is None else task.variables
    with strategy.scope():
        optimizer.build(variables)
    last.restore_or_initialize()
    history = runs.read_json(run_dir / runs.HISTORY_FILE, [])
    history = [entry for entry in history if entry["epoch"] <= int(epoch_done)]
    if history:
        print(f"continuing {run_dir} after epoch {int(epoch_done)}")

    step = make_step(strategy, variables, optimizer, task.losses, task.gradients)
    for epoch in range(int(epoch_done) + 1, task.epochs + 1):
        if _exhausted(history, task):
            break
        if epoch == 0 and not task.judge_first:
            continue
        entry: dict[str, Any] = {"epoch": epoch}
        if epoch:
            entry |= _run_epoch(strategy, step, task, epoch)
        entry |= task.validate()
        if not math.isfinite(entry[task.objective]):
            raise UsageError(
                f"the validation split gives {task.objective}={entry[task.objective]}: it needs "
                "both clicked and unclicked candidates; check --label_field, or build the data "
                "set with a larger --validation_fraction"
            )
        history.append(entry)
        print(_describe(entry, task.objective), flush=True)
        if _best(history, task.objective) is entry:
            best.save(epoch)
        runs.write_json(run_dir / runs.HISTORY_FILE, history)
        epoch_done.assign(epoch)
        last.save(epoch)

    runs.restore_best(run_dir, model)
    chosen = _best(history, task.objective)
    runs.write_json(run_dir / runs.METRICS_FILE, {"validation": chosen})
    return chosen


def make_step(
    strategy: tf.distribute.Strategy,
    variables: Sequence[tf.Variable],
    optimizer: tf_keras.optimizers.Optimizer,
    losses: Callable[[Batch, tf.Tensor], Losses],
    gradients_of: Gradients | None = None,
) -> Callable[[Batch], Losses]:
    """One training step over all replicas: distributed batch → losses summed over replicas."""

    def on_replica(batch: Batch) -> Losses:
        if gradients_of is not None:
            parts, found = gradients_of(batch, optimizer.iterations)
        else:
            with tf.GradientTape() as tape:
                parts = losses(batch, optimizer.iterations)
            found = tape.gradient(parts["loss"], variables)
        gradients = sum_gradients(found)
        optimizer.apply_gradients(
            zip(gradients, variables, strict=True), skip_gradients_aggregation=True
        )
        return parts

    def step(batch: Batch) -> Losses:
        parts = strategy.run(on_replica, args=(batch,))
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, part, axis=None)
            for name, part in parts.items()
        }

    return tf.function(step, reduce_retracing=True)


def _run_epoch(
    strategy: tf.distribute.Strategy,
    step: Callable[[Batch], Losses],
    task: Task,
    epoch: int,
) -> dict[str, float]:
    started = time.monotonic()
    totals: dict[str, tf.Tensor] = {}
    steps = 0
    with tqdm.tqdm(
        task.batches(epoch),
        desc=f"epoch {epoch}/{task.epochs}",
        total=task.steps,
        unit="step",
        mininterval=1.0,
        leave=False,
    ) as bar:
        for batch in bar:
            for name, part in step(split_rows(strategy, batch)).items():
                totals[name] = totals.get(name, 0.0) + part
            steps += 1
            if steps % CHECK_EVERY == 0:
                mean = _check_finite(float(totals["loss"]) / steps, epoch, steps)
                bar.set_postfix(loss=f"{mean:.4f}")
    if not steps:
        raise UsageError("the training split holds no records: build the data set from longer logs")
    means = {name: float(total) / steps for name, total in totals.items()}
    _check_finite(means["loss"], epoch, steps)
    return means | {"steps": steps, "seconds": round(time.monotonic() - started, 2)}


def _check_finite(mean_loss: float, epoch: int, steps: int) -> float:
    if not math.isfinite(mean_loss):
        raise UsageError(
            f"the loss is {mean_loss} within the last {CHECK_EVERY} steps before step {steps} of "
            f"epoch {epoch}: lower the learning rate (--set stage1.learning_rate=... or "
            "stage2.learning_rate=...)"
        )
    return mean_loss


def _manager(
    directory: pathlib.Path, keep: int, **objects: tf.Module
) -> tf.train.CheckpointManager:
    return tf.train.CheckpointManager(
        tf.train.Checkpoint(**objects), str(directory), max_to_keep=keep
    )


def _best(history: list[dict[str, Any]], objective: str) -> dict[str, Any]:
    return max(history, key=lambda entry: entry[objective])


def _exhausted(history: list[dict[str, Any]], task: Task) -> bool:
    if not history:
        return False
    return history[-1]["epoch"] - _best(history, task.objective)["epoch"] >= task.patience


def _describe(entry: dict[str, Any], objective: str) -> str:
    shown = [
        objective,
        *(k for k in entry if k not in (objective, "epoch", "steps") and "/" not in k),
    ]
    return f"epoch {entry['epoch']:>3}  " + "  ".join(f"{k} {entry[k]:.4g}" for k in shown)
