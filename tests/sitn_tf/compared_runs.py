"""Run directories as a report reads them, without training: two that gain and lose by slice."""

import dataclasses
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sitn_tf import config, runs, schema, whole_files
from sitn_tf.evaluation import kept_predictions, metrics
from sitn_tf.evaluation.kept_predictions import Predictions

REQUESTS, CANDIDATES, MAX_HISTORY = 600, 4, 12


def scored(signal: np.ndarray | float, seed: int) -> Predictions:
    """Requests of users of their own, their lengths in turn, the first candidate clicked.

    Args:
      signal: how much more the clicked candidate's logit is; of each request, or of all.
    """
    request = np.repeat(np.arange(REQUESTS), CANDIDATES)
    label = (np.arange(len(request)) % CANDIDATES == 0).astype(int)
    noise = np.random.default_rng(seed).normal(size=len(label))
    return Predictions(
        request=request,
        candidate=2 + np.arange(len(request)) % 9,
        label=label,
        logged_score=None,
        logit=(np.broadcast_to(signal, REQUESTS)[request] * label + noise).astype(np.float32),
        user=np.arange(REQUESTS) * 3,
        source_length=np.arange(REQUESTS) % 2 * 6,
        target_length=np.where(np.arange(REQUESTS) < 12, 0, np.arange(REQUESTS) % 12 + 1),
    )


def write(
    run_dir: pathlib.Path,
    predictions: Predictions,
    settings: tuple[str, ...] = (),
    init: str = runs.NO_INIT,
    dataset_hash: str = "d1",
    validation_auc: float | None = None,
) -> pathlib.Path:
    """A finished run that keeps these predictions of the test split.

    Args:
      validation_auc: that training told, if it did.
    """
    run_dir.mkdir(parents=True)
    chosen = config.override(config.tiny(), settings)
    manifest = schema.Manifest(
        schema.SCHEMA_VERSION, schema.schema_hash(), dataset_hash, [], {}, {}, MAX_HISTORY,
        *({} for _ in range(6)),
    )  # fmt: skip
    info = runs.RunInfo(schema.STAGE2, "data", dataset_hash, init, {"python": "3.11"})
    whole_files.write_text(run_dir / runs.CONFIG_FILE, chosen.to_json())
    whole_files.write_text(run_dir / schema.MANIFEST_FILE, manifest.to_json())
    whole_files.write_json(run_dir / runs.RUN_FILE, dataclasses.asdict(info))
    epochs = [
        {"epoch": n, "loss": 0.9 / n, "click": 0.7 / n, "seconds": 1.5, "auc": 0.6 + n % 3 / 100}
        for n in range(1, 5)
    ]
    runs.write_history(run_dir, epochs)
    tell(run_dir, predictions)
    if validation_auc is not None:
        runs.write_metrics(run_dir, schema.VALIDATION, {"auc": validation_auc})
    kept_predictions.write(predictions, run_dir, schema.TEST)
    ids = [""] * 2 + [f"t{n}" for n in range(9)]
    table = {schema.ITEM: ids, schema.TITLE: ids, schema.COUNT: [0, 0, 0, *range(1, 9)]}
    (run_dir / "items").mkdir()
    pq.write_table(pa.table(table), run_dir / schema.item_table_path(schema.TARGET))
    return run_dir


def tell(run_dir: pathlib.Path, predictions: Predictions) -> None:
    """Writes the metrics of these predictions."""
    found = metrics.click_metrics(predictions.label, predictions.probability, predictions.request)
    whole_files.write_json(run_dir / runs.METRICS_FILE, {schema.TEST: found})
