"""Stage 1: self-supervised training of both encoders ("Two-stage Training Paradigm")."""

import pathlib

import numpy as np
import tensorflow as tf

from sitn_tf import data, retrieval, runs, schema, training
from sitn_tf.config import Config
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.models.registry import make_pretrainer
from sitn_tf.optimizers import make_optimizer

EVALUATION_BATCH = 512


def run_stage1(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    loop: training.Loop | None = None,
) -> dict[str, float]:
    """Trains stage 1 into `run_dir` and returns the best epoch's metrics."""
    manifest = schema.read_manifest(data_dir)
    info = runs.RunInfo(
        schema.STAGE1, str(data_dir), manifest.dataset_hash, "none", runs.versions()
    )
    runs.prepare(run_dir, config, manifest, info)
    tables = runs.read_tables(data_dir, manifest, config.model)
    steps = manifest.steps(schema.STAGE1, schema.TRAIN, config.stage1.batch_size)
    with strategy.scope():
        model = make_pretrainer(config, tables, manifest.max_history)
        optimizer = make_optimizer(config.stage1, steps)

    def batches(epoch: int, skip: int) -> tf.data.Dataset:
        return data.read_epoch(
            data_dir, schema.STAGE1, config.stage1.batch_size, config.seed, epoch, skip
        )

    def losses(batch: data.Batch, step: tf.Tensor) -> training.Losses:
        loss = model.loss(batch, step)
        return {"loss": loss.total, "i2i": loss.i2i, "i2c": loss.i2c}

    held_out = data.read_split(data_dir, schema.STAGE1, schema.VALIDATION, EVALUATION_BATCH)
    task = training.Task(
        batches=batches,
        losses=losses,
        validate=lambda: held_out_retrieval(model, held_out, config.stage1.retrieval_users),
        objective="recall",
        epochs=config.stage1.epochs,
        patience=config.stage1.patience,
        judge_first=True,
        variables=model.trained_variables(),
        records=manifest.records.get(schema.STAGE1, {}).get(schema.TRAIN),
        clip_norm=config.stage1.clip_norm,
        seed=config.seed,
    )
    return training.fit(run_dir, strategy, model, optimizer, task, loop)


def held_out_retrieval(
    model: Pretrainer, held_out: tf.data.Dataset, users: int
) -> dict[str, float]:
    """Cross-domain retrieval among the first `users` held-out users."""
    source, target = [], []
    for batch in held_out.take(-(-users // EVALUATION_BATCH)):
        p_source, p_target = model(batch)
        source.append(p_source.numpy())
        target.append(p_target.numpy())
    found = retrieval.cross_domain_retrieval(
        np.concatenate(source)[:users], np.concatenate(target)[:users]
    )
    return {
        "recall": found.recall,
        "chance": found.chance_recall,
        "median_rank": found.median_rank,
        "users": found.users,
    }
