"""Stage 1: self-supervised training of both encoders ("Two-stage Training Paradigm")."""

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from sitn_tf import data, runs, schema
from sitn_tf.config import Config
from sitn_tf.distributed.replicas import Gradient
from sitn_tf.errors import InputError
from sitn_tf.evaluation import collapse, retrieval
from sitn_tf.layers.precision import LOSS_SCALE
from sitn_tf.models.pretrainer import Pretrainer, Stage1Loss
from sitn_tf.models.registry import make_pretrainer
from sitn_tf.optimizers.row_sparse import make_optimizer
from sitn_tf.training import train_loop
from sitn_tf.training.gradient_cache import cached_gradients

EVALUATION_BATCH = 512


def run_stage1(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    loop: train_loop.Loop | None = None,
) -> dict[str, float]:
    """Trains stage 1 into `run_dir` and returns the best epoch's metrics."""
    manifest = schema.read_manifest(data_dir)
    info = runs.RunInfo(
        schema.STAGE1, str(data_dir), manifest.dataset_hash, "none", runs.versions()
    )
    tables = runs.read_tables(data_dir, manifest, config)
    steps = manifest.steps(schema.STAGE1, schema.TRAIN, config.stage1.batch_size)
    with strategy.scope():
        model = make_pretrainer(config, tables, manifest.max_history)
        optimizer = make_optimizer(config.stage1, steps)
    loop = loop or train_loop.Loop()
    runs.prepare(run_dir, config, manifest, info, loop.overwrite)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        return data.read_epoch(
            data_dir, schema.STAGE1, config.stage1.batch_size, config.seed, epoch, skip
        )

    def losses(batch: data.Batch, step: tf.Tensor) -> train_loop.Losses:
        return _named(model.loss(batch, step))

    def gradients(
        batch: data.Batch, step: tf.Tensor
    ) -> tuple[train_loop.Losses, list[Gradient | None]]:
        loss, by_variable = micro_batch_gradients(model, batch, step, model.trained_variables())
        return _named(loss), by_variable

    known_signs: set[str] = set()

    def validate() -> dict[str, float]:
        measured = held_out(model, held_out_users)
        if optimizer.iterations.numpy():
            _report_collapse(measured, config.stage1.collapse, known_signs)
        return measured

    held_out_users = data.read_split(data_dir, schema.STAGE1, schema.VALIDATION, EVALUATION_BATCH)
    task = train_loop.Task(
        batches=batches,
        losses=losses,
        gradients=gradients if config.stage1.micro_batches > 1 else None,
        validate=validate,
        objective="recall",
        epochs=config.stage1.epochs,
        patience=config.stage1.patience,
        judge_first=True,
        variables=model.trained_variables(),
        records=manifest.records.get(schema.STAGE1, {}).get(schema.TRAIN),
        clip_norm=config.stage1.clip_norm,
        loss_scale=LOSS_SCALE[config.model.precision],
        seed=config.seed,
    )
    return train_loop.fit(run_dir, strategy, model, optimizer, task, loop)


def micro_batch_gradients(
    model: Pretrainer, batch: data.Batch, step: tf.Tensor, variables: Sequence[tf.Variable]
) -> tuple[Stage1Loss, list[Gradient | None]]:
    """The loss and its gradients, the users encoded in `stage1.micro_batches` parts.

    The same numbers as a tape over `model.loss`, in the memory of one part.
    """
    users = model.prepare(batch, step)
    return cached_gradients(
        lambda histories: model(histories, training=True),
        lambda encoded: model.contrast(encoded, users, step),
        users.histories,
        model.config.stage1.micro_batches,
        variables,
    )


def _named(loss: Stage1Loss) -> train_loop.Losses:
    return {"loss": loss.total, "i2i": loss.i2i, "i2c": loss.i2c}


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
    """Cross-domain retrieval among the first held-out users, and the state of the clusters.

    Returns:
      Metrics by name; those of clusters are named `clusters_<K>/<domain>/<what>`.
    """
    users = model.config.stage1.retrieval_users
    source, target = [], []
    for batch in batches.take(-(-users // EVALUATION_BATCH)):
        p_source, p_target = model(batch)
        source.append(p_source.numpy())
        target.append(p_target.numpy())
    instances = {
        schema.SOURCE: np.concatenate(source)[:users],
        schema.TARGET: np.concatenate(target)[:users],
    }
    retrieved = retrieval.cross_domain_retrieval(*instances.values())
    measured = {
        "recall": retrieved.recall,
        "chance": retrieved.chance_recall,
        "median_rank": retrieved.median_rank,
        "users": retrieved.users,
    }
    for space in model.i2c:
        clusters = collapse.clusters_of(space, instances)
        measured |= {
            f"clusters_{space.source.clusters}/{name}": value
            for name, value in collapse.examine(clusters).items()
        }
    return measured
