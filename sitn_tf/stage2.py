"""Stage 2: the click scorer, from stage 1's encoders or from scratch (Eq. 8 and 9)."""

import dataclasses
import pathlib

import tensorflow as tf

from sitn_tf import data, losses, metrics, runs, schema, training
from sitn_tf.cli import UsageError
from sitn_tf.config import Config, differences
from sitn_tf.distribution import global_sum
from sitn_tf.models.registry import make_scorer
from sitn_tf.models.scorer import Scorer
from sitn_tf.optimizers import RowSparseAdam
from sitn_tf.predict import predict

NO_INIT = "none"
EVALUATION_BATCH = 512

_ENCODER_FIELDS = (
    "embedding_dim",
    "heads",
    "blocks",
    "residual",
    "layer_norm",
    "positions",
    "side_features",
    "title_words",
    "id_embedding",
    "id_rows",
    "id_combination",
)


def run_stage2(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    init: str,
) -> dict[str, float]:
    """Trains stage 2 into `run_dir` and returns the best epoch's metrics.

    Args:
      init: run directory of a finished stage 1, or "none".

    Raises:
      UsageError: the stage-1 run is not there, or does not fit.
    """
    manifest = schema.read_manifest(data_dir)
    if init != NO_INIT:
        check_fits(pathlib.Path(init), config, manifest)
    info = runs.RunInfo(schema.STAGE2, str(data_dir), manifest.dataset_hash, init, runs.versions())
    runs.prepare(run_dir, config, manifest, info)
    tables = runs.read_tables(data_dir, manifest, config.model)
    with strategy.scope():
        scorer = make_scorer(config.model, tables, manifest.max_history)
        optimizer = RowSparseAdam(
            learning_rate=config.stage2.learning_rate, row_decay=config.stage2.row_decay
        )
    initialize(scorer, init, run_dir)

    def batches(epoch: int) -> tf.data.Dataset:
        return data.read_epoch(
            data_dir, schema.STAGE2, config.stage2.batch_size, config.seed, epoch
        )

    validation = data.read_split(data_dir, schema.STAGE2, schema.VALIDATION, EVALUATION_BATCH)

    def validate() -> dict[str, float]:
        found = predict(scorer, validation)
        return metrics.click_metrics(found.label, found.probability, found.request)

    task = training.Task(
        batches=batches,
        losses=lambda batch, step: {"loss": mean_click_loss(scorer, batch)},
        validate=validate,
        objective="auc",
        epochs=config.stage2.epochs,
        patience=config.stage2.patience,
        steps=manifest.steps(schema.STAGE2, schema.TRAIN, config.stage2.batch_size),
    )
    return training.fit(run_dir, strategy, scorer, optimizer, task)


def mean_click_loss(scorer: Scorer, batch: data.Batch) -> tf.Tensor:
    """A replica's share of the mean cross-entropy (Eq. 9) over the global batch's candidates."""
    logits = scorer(batch, training=True)
    real = batch[schema.CANDIDATES.name] != schema.PAD_ID
    total = tf.reduce_sum(losses.click_loss(batch[schema.LABELS.name], logits, real))
    count = global_sum(tf.reduce_sum(tf.cast(real, tf.float32)))
    return tf.math.divide_no_nan(total, count)


def check_fits(stage1_dir: pathlib.Path, config: Config, manifest: schema.Manifest) -> None:
    """Raises UsageError unless the stage-1 run has this data set and these encoders."""
    runs.check_finished(stage1_dir, schema.STAGE1)
    trained_on = runs.read_info(stage1_dir).dataset_hash
    if trained_on != manifest.dataset_hash:
        raise UsageError(
            f"--init={stage1_dir} was trained on the data set {trained_on}, this one is "
            f"{manifest.dataset_hash}: train stage 1 on it, or give --init=none"
        )
    theirs = runs.read_config(stage1_dir).model
    encoders = {field: getattr(theirs, field) for field in _ENCODER_FIELDS}
    same = dataclasses.replace(config, model=dataclasses.replace(config.model, **encoders))
    changed = differences(same, config)
    if changed:
        raise UsageError(
            f"--init={stage1_dir} has other encoders (there, here: {'; '.join(changed)}): "
            "give the same --preset and --set to both stages, or --init=none"
        )


def initialize(scorer: Scorer, init: str, run_dir: pathlib.Path) -> None:
    """Restores what stage 1 trained, and writes which variables are restored and which fresh."""
    restored = []
    if init != NO_INIT:
        encoders = tf.train.Checkpoint(**scorer.domains)
        path = tf.train.latest_checkpoint(str(pathlib.Path(init) / runs.BEST))
        status = tf.train.Checkpoint(model=encoders).restore(path)
        status.assert_existing_objects_matched().expect_partial()
        restored = [v for part in scorer.domains.values() for v in part.trainable_variables]
    known = {id(variable) for variable in restored}
    described = {
        "init": init,
        "restored": [describe(v) for v in restored],
        "fresh": [describe(v) for v in scorer.trainable_variables if id(v) not in known],
    }
    runs.write_json(run_dir / runs.INITIALIZATION_FILE, described)
    print(
        f"initialised from {init}: {len(described['restored'])} variables restored, "
        f"{len(described['fresh'])} fresh ({run_dir / runs.INITIALIZATION_FILE})"
    )


def describe(variable: tf.Variable) -> str:
    return f"{variable.name} {list(variable.shape)}"
