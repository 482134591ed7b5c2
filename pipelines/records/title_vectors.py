"""Vectors of titles, as a model gives them, in files (TITLES): what items look their own up in."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import files
from sitn_tf import schema
from sitn_tf.errors import InputError


def write(path: str, made: Sequence[tuple[str, np.ndarray]]) -> None:
    """Writes titles with their vectors [W], scaled to length 1, as float32.

    Raises:
      InputError: a vector has a number that is not finite.
    """
    titles, vectors = zip(*made, strict=True)
    rows = np.asarray(vectors, np.float32)
    if bad := np.flatnonzero(~np.isfinite(rows).all(axis=1)).tolist():
        raise InputError(f"title_model gives no finite vector of the title {titles[bad[0]]!r}")
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    table = pa.table({schema.TITLE: pa.array(titles, pa.string()), schema.VECTOR: column})
    files.write_table(path, table)


def titles(path: str) -> pa.Array:
    """The titles of a file."""
    return files.read_table_batches(path)[schema.TITLE].combine_chunks()


def together(paths: Iterable[str], path: str) -> str:
    """Writes one file of several; its SHA-256."""
    return files.write_table(path, pa.concat_tables(map(files.read_table_batches, sorted(paths))))


def look_up(wanted: pa.ChunkedArray, paths: Iterable[str]) -> np.ndarray:
    """Titles [n] → their vectors in files, float32 [n, W]; zeros where no file has a title."""
    vectors = np.zeros((len(wanted), 0), np.float32)
    for path in sorted(paths):
        table = files.read_table_batches(path)
        column = table[schema.VECTOR].combine_chunks()
        rows = column.flatten().to_numpy().reshape(len(table), -1)
        place = pc.index_in(wanted, value_set=table[schema.TITLE].combine_chunks())
        there = place.is_valid().to_numpy()
        if not vectors.shape[1]:
            vectors = np.zeros((len(wanted), rows.shape[1]), np.float32)
        vectors[there] = rows[place.drop_null().to_numpy()]
    return vectors
