"""Stage 1: self-supervised training of both encoders ("Two-stage Training Paradigm")."""

import dataclasses
import pathlib
from collections.abc import Sequence

import tensorflow as tf

from sitn_tf import data, runs, schema
from sitn_tf.config import Config
from sitn_tf.distributed.replicas import Gradient
from sitn_tf.errors import InputError
from sitn_tf.evaluation import collapse, retrieval
from sitn_tf.evaluation.instances import encode_users
from sitn_tf.evaluation.predictions import EVALUATION_BATCH
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.training import steps, train_loop
from sitn_tf.training.gradient_cache import cached_gradients
from sitn_tf.training.stage import Stage


def run_stage1(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    loop: train_loop.Loop | None = None,
) -> dict[str, float]:
    """Trains stage 1 into `run_dir` and returns the best epoch's metrics."""
    loop = loop or train_loop.Loop()
    stage = Stage(schema.STAGE1, config, data_dir, strategy, loop.skip_corrupt)
    model: Pretrainer = stage.model
    trained = model.trained_variables()
    stage.prepare(run_dir, runs.NO_INIT, loop.overwrite)
    held_out_users = stage.validation(EVALUATION_BATCH)
    known_signs: set[str] = set()

    def gradients(batch: data.Batch, step: tf.Tensor) -> tuple[steps.Losses, list[Gradient | None]]:
        return micro_batch_gradients(model, batch, step, trained)

    def validate() -> dict[str, float]:
        measured = held_out(model, held_out_users)
        if stage.optimizer.iterations.numpy():
            _report_collapse(measured, config.stage1.collapse, known_signs)
        return measured

    task = train_loop.Task(
        losses=model.loss,
        gradients=gradients if config.stage1.micro_batches > 1 else None,
        variables=trained,
        validate=validate,
        objective="rank_gain",
        undefined="an instance of a held-out user is not a number, so weights are not: lower "
        "stage1.learning_rate",
        judge_first=True,
    )
    best = train_loop.fit(run_dir, stage, task, loop)
    if not best["epoch"]:
        print(f"warning: {learned_nothing(run_dir)}", flush=True)
    return best


def learned_nothing(run_dir: pathlib.Path) -> str:
    """What to say of a stage 1 whose best epoch is 0."""
    return (
        f"the best epoch of {run_dir} is 0: held-out users are found best with untrained weights, "
        "stage 1 has learned nothing that carries over"
    )


def micro_batch_gradients(
    model: Pretrainer, batch: data.Batch, step: tf.Tensor, variables: Sequence[tf.Variable]
) -> tuple[steps.Losses, list[Gradient | None]]:
    """The loss and its gradients, the users encoded in `stage1.micro_batches` parts.

    The same numbers as a tape over `model.loss`, but for which elements `model.dropout` drops, in
    the memory of one part.
    """
    users = model.prepare(batch, step)
    return cached_gradients(
        lambda histories: model(histories, training=True),
        lambda encoded: model.contrast(encoded, users, step),
        users.histories,
        model.config.stage1.micro_batches,
        variables,
    )


def _report_collapse(measured: dict[str, float], action: str, known: set[str]) -> None:
    """Says once, or raises, what looks like collapse.

    Args:
      action: stage1.collapse.
      known: what has been said; what is new is added.
    """
    signs = collapse.find(measured) if action != "ignore" else {}
    for about in signs.keys() - known:
        print(f"warning: {signs[about]}", flush=True)
    known.update(signs)
    if signs and action == "stop":
        raise InputError(
            f"stage 1 has collapsed ({'; '.join(signs.values())})",
            "try another contrast.temperature, fewer contrast.granularities or stage1.i2c_after, "
            "or stage1.collapse=warn",
        )


def held_out(model: Pretrainer, batches: tf.data.Dataset) -> dict[str, float]:
    """Cross-domain retrieval among all held-out users, and the clusters of the first of them.

    Beside them `apart`, of the instances of all (`collapse.apart`).

    Users are ranked among `stage1.retrieval_users` at most, but each of them is.

    Returns:
      Metrics by name; those of clusters are named `clusters_<K>/<domain>/<what>`.
    """
    users = model.config.stage1.retrieval_users
    instances = encode_users(model, batches).instances
    source, target = (instances[domain] for domain in schema.DOMAINS)
    measured = dataclasses.asdict(retrieval.cross_domain_retrieval(source, target, users))
    measured["apart"] = collapse.apart(source, target)
    first = {domain: of_users[:users] for domain, of_users in instances.items()}
    for space in model.i2c:
        clusters = collapse.clusters_of(space, first)
        measured |= {
            f"clusters_{space.source.clusters}/{name}": value
            for name, value in collapse.examine(clusters).items()
        }
    return measured
