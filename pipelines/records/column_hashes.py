"""Stable 64-bit hashes of whole columns: the basis of every shard and every seed.

A value's hash depends on its bytes alone, so what is sampled or where it is
kept never depends on the runner, the size of bundles or the number of workers.
"""

import numpy as np
import pyarrow as pa

from sitn_tf import splitmix

GOLDEN = np.uint64(splitmix.GOLDEN)
_PRIME = np.uint64(0x100000001B3)


def mix(values: np.ndarray) -> np.ndarray:
    """A step of SplitMix64: uint64 [n] to well-mixed uint64 [n]."""
    mixed: np.ndarray = splitmix.finish(values + GOLDEN, np.right_shift, np.uint64)
    return mixed


def combine(*columns: np.ndarray | int) -> np.ndarray:
    """One uint64 hash a row of several columns (arrays [n] or scalars); order matters."""
    result: np.ndarray = np.zeros(1, np.uint64)
    for column in columns:
        result = mix(result * _PRIME ^ as_uint64(column))
    return result


def as_uint64(values: np.ndarray | int) -> np.ndarray:
    """Integers as uint64, negative ones by two's complement."""
    if isinstance(values, int):
        return np.array([values % (1 << 64)], np.uint64)
    return values.astype(np.int64).view(np.uint64) if values.dtype.kind != "u" else values


def unit_interval(hashes: np.ndarray) -> np.ndarray:
    """uint64 hashes [n] as float64 [n] in [0, 1)."""
    return (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53


def string_buffers(strings: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The offsets int64 [n + 1] and bytes uint8 of an array of strings without nulls."""
    if not pa.types.is_large_string(strings.type):
        strings = strings.cast(pa.large_string())
    _, offsets, data = strings.buffers()
    bounds = np.frombuffer(offsets, np.int64)[strings.offset : strings.offset + len(strings) + 1]
    return bounds, np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)


def hash_strings(strings: pa.Array) -> np.ndarray:
    """Strings [n], nulls not allowed, to uint64 [n]: a polynomial in the bytes, mixed."""
    if len(strings) == 0:
        return np.empty(0, np.uint64)
    offsets, data = string_buffers(strings)
    lengths = np.diff(offsets)
    longest = int(lengths.max())
    powers = np.ones(max(longest, 1), np.uint64)
    np.multiply.accumulate(np.full(len(powers) - 1, _PRIME), out=powers[1:])
    text = data[offsets[0] : offsets[-1]]
    if (lengths == longest).all():  # ids of one length, the usual case, are a matrix
        sums = (text.reshape(len(strings), longest) + np.uint64(1)) @ powers[:longest]
    else:
        starts = offsets[:-1] - offsets[0]
        position = np.arange(len(text)) - np.repeat(starts, lengths)
        terms = (text + np.uint64(1)) * powers[position]
        sums = np.zeros(len(strings), np.uint64)
        filled = lengths > 0  # reduceat has no empty segments
        if filled.any():
            sums[filled] = np.add.reduceat(terms, starts[filled])
    return mix(sums + lengths.astype(np.uint64) * GOLDEN)
