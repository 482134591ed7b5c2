"""Every candidate of a split with what a run says of it: arrays, and a file of the run directory.

RUN/predictions-<split>.npz holds them in compact dtypes, with the split and the data set that they
are of. No TensorFlow here: who compares runs need not score them again.
"""

import dataclasses
import io
import pathlib
import zipfile
import zlib

import numpy as np

from sitn_tf import runs, whole_files
from sitn_tf.errors import InputError, first_line
from sitn_tf.evaluation import metrics


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Every real candidate of a split, in the order of its records: N of R requests.

    Attributes:
      request: `[N]` int64, number of the record.
      candidate: `[N]` int64, item id.
      label: `[N]` int64.
      logged_score: `[N]` float32, the log's own score, or None where the log has none.
      logit: `[N]` float32.
      user: `[R]` int64, the same for requests of the same user, in every run.
      source_length, target_length: `[R]` int64, items in the histories of the request's record.
    """

    request: np.ndarray
    candidate: np.ndarray
    label: np.ndarray
    logged_score: np.ndarray | None
    logit: np.ndarray
    user: np.ndarray
    source_length: np.ndarray
    target_length: np.ndarray

    @property
    def probability(self) -> np.ndarray:
        """`[N]` float64."""
        return 1.0 / (1.0 + np.exp(-self.logit.astype(np.float64)))


_COMPACT = {
    "request": np.int32,
    "candidate": np.int32,
    "label": np.int8,
    "logged_score": np.float32,
    "logit": np.float32,
    "user": np.int64,
    "source_length": np.int32,
    "target_length": np.int32,
}
_UNREADABLE = (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error)
_SPLIT = "split"
_DATASET = "dataset_hash"


def path(run_dir: pathlib.Path, split: str) -> pathlib.Path:
    """Where a run's predictions of a split are, if they were kept."""
    return run_dir / f"predictions-{split}.npz"


def write(predictions: Predictions, run_dir: pathlib.Path, split: str) -> None:
    """Keeps a run's predictions of a split of its data set."""
    columns = {
        name: values.astype(_COMPACT[name])
        for name, values in vars(predictions).items()
        if values is not None
    }
    columns[_SPLIT] = np.array(split)
    columns[_DATASET] = np.array(runs.read_info(run_dir).dataset_hash)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **columns)
    whole_files.write_bytes(path(run_dir, split), buffer.getvalue())


def read(run_dir: pathlib.Path, split: str) -> Predictions:
    """The predictions that a finished run keeps of a split.

    Raises:
      InputError: there are none, they can't be read, or they are of another split, another data
        set or other weights than those of the AUC in metrics.json.
    """
    file = path(run_dir, split)
    remedy = f"python -m sitn_tf.evaluate --run_dir={run_dir} --split={split} --keep_predictions"
    if not file.is_file():
        raise InputError(f"{run_dir} keeps no predictions of the {split} split", remedy)
    try:
        with np.load(file) as arrays:
            columns = {name: arrays[name] for name in arrays.files}
        origin = str(columns.pop(_SPLIT)), str(columns.pop(_DATASET))
        wide = {
            name: values.astype(np.int64 if values.dtype.kind == "i" else values.dtype)
            for name, values in columns.items()
        }
        kept = Predictions(**{"logged_score": None, **wide})
    except _UNREADABLE as error:
        raise InputError(f"{file} can't be read ({first_line(error)})", remedy) from error
    expected = split, runs.read_info(run_dir).dataset_hash
    if origin != expected:
        raise InputError(
            f"{file} is of {' of '.join(origin)}, not of {' of '.join(expected)}", remedy
        )
    told = runs.read_json(run_dir / runs.METRICS_FILE, {}).get(split, {}).get("auc")
    found = metrics.auc(kept.label, kept.probability)
    if told is None or not np.isclose(found, told, rtol=0, atol=1e-9, equal_nan=True):
        raise InputError(f"{file} has an AUC of {found}, metrics.json says {told}", remedy)
    return kept
