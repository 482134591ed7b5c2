"""A finished stage-2 run directory without training: random weights, whole in every file."""

import pathlib
import shutil

import tensorflow as tf

from sitn_tf import config, runs, schema, whole_files
from sitn_tf.models.registry import make_scorer
from tests.small_dataset import write_small_dataset


def write_small_run(
    folder: pathlib.Path,
    *settings: str,
    seed: int = 0,
    dataset: pathlib.Path | None = None,
    measured: bool = True,
) -> pathlib.Path:
    """Writes a data set (unless given) and a run over it; returns the run directory.

    Args:
      *settings: `section.field=value`, of what differs from config.tiny.
      measured: whether the data set that it wrote stays, on which an export measures AUC. That is
        nothing of the model, and takes a quarter of the time.
    """
    data_dir = dataset or write_small_dataset(folder / "dataset")
    manifest = schema.read_manifest(data_dir)
    chosen = config.override(config.tiny(), settings)
    run_dir = folder / "stage2"
    info = runs.RunInfo(
        stage=schema.STAGE2,
        data_dir=str(data_dir),
        dataset_hash=manifest.dataset_hash,
        init="none",
        versions=runs.versions(),
    )
    runs.prepare(run_dir, chosen, manifest, info)
    tf.keras.utils.set_random_seed(seed)
    tables = runs.read_tables(data_dir, manifest, chosen)
    scorer = make_scorer(chosen, tables, manifest.max_history)
    _spread(scorer)
    tf.train.Checkpoint(model=scorer).save(str(run_dir / runs.BEST / "ckpt"))
    whole_files.write_json(run_dir / runs.METRICS_FILE, {"validation": {"auc": 0.5}})
    if not measured:
        shutil.rmtree(folder / "dataset")
    return run_dir


def _spread(scorer: tf.keras.Model) -> None:
    """Makes weights large enough that scores differ between requests."""
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.normal(variable.shape, stddev=0.2))
    for variable in scorer.non_trainable_variables:
        if variable.dtype == tf.float32:  # Dice's statistics
            variable.assign_add(tf.random.uniform(variable.shape))
