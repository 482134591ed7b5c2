"""Lists of numbers of item files ↔ the bytes that raw items keep of them (float32, b"" for none).

Bytes and not lists: Arrow sorts them, so that which of an item's repeated rows counts does not
depend on the order in which files were read.
"""

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs.parsed import BadLineError

_TYPE = np.dtype("<f4")
_BYTES = _TYPE.itemsize


def read(value: Any, field: str, width: int = 0) -> bytes:
    """A line's list of numbers, or its JSON (as in CSV), as bytes; b"" of none and of zeros.

    Args:
      field: its name, for reasons.
      width: how many numbers it must have; 0 takes any.

    Raises:
      BadLineError: it is no list of numbers, not finite as float32, or of another width.
    """
    if value is None or value == "":
        return b""
    try:
        given = np.asarray(json.loads(value) if isinstance(value, str) else value)
    except (ValueError, RecursionError) as error:
        raise BadLineError(f"{field} is no list of numbers") from error
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iuf"):
        raise BadLineError(f"{field} is no list of numbers")
    if not given.size:
        return b""
    with np.errstate(over="ignore"):
        numbers = given.astype(_TYPE)
    if not np.isfinite(numbers).all():
        raise BadLineError(f"{field} has a number that is not finite")
    if width and numbers.size != width:
        raise BadLineError(f"{field} has not {width} numbers")
    return numbers.tobytes() if numbers.any() else b""


def commonest_width(column: pa.ChunkedArray) -> int:
    """The length that most of a column's vectors have, of equals the least; 0 where none is."""
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy() // _BYTES
    counts = Counter(lengths[lengths > 0].tolist())
    return min(counts, key=lambda width: (-counts[width], width), default=0)


def matrix(column: pa.ChunkedArray, width: int) -> np.ndarray:
    """A column [n] of vectors, without nulls → float32 [n, width]; zeros where there is none."""
    vectors = np.zeros((len(column), width), _TYPE)
    begin = 0
    for chunk in filter(len, column.chunks):
        _, offsets, data = chunk.buffers()
        edges = np.frombuffer(offsets, np.int64, len(chunk) + 1, 8 * chunk.offset)
        if edges[-1] > edges[0]:
            numbers = np.frombuffer(data, _TYPE)[edges[0] // _BYTES : edges[-1] // _BYTES]
            rows = begin + np.flatnonzero(np.diff(edges))
            vectors[rows] = numbers.reshape(-1, width)
        begin += len(chunk)
    return vectors
