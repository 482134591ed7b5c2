"""Columns to serialized `tf.train.Example`s in TFRecord framing, without TensorFlow.

Byte strings are joined column by column by Arrow: no Python runs for a record, but for its
checksum. Tests hold the result to TensorFlow's own parser.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sitn_tf import schema

# The types of pyarrow are not known to the type checker.
Strings: TypeAlias = Any
Buffer: TypeAlias = Any


@dataclasses.dataclass(frozen=True)
class Ragged:
    """Rows of values: row i is values[offsets[i]:offsets[i + 1]]."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of_lengths(cls, values: np.ndarray, lengths: np.ndarray) -> "Ragged":
        return cls(values, np.concatenate([[0], np.cumsum(lengths)]))

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.offsets)


@dataclasses.dataclass(frozen=True)
class Slices:
    """Rows that are ranges of one long column of int64, in any order, overlapping or not.

    Histories are: each value is encoded once, however many histories it is in.

    Attributes:
      data: uint8, the whole column as varints.
      ends: int64 [values + 1], where each value's bytes end, from 0.
      start, stop: int64 [n], row i is values start[i]..stop[i]-1.
    """

    data: np.ndarray
    ends: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> "Slices":
        """The encoded column, without rows yet: see `rows`."""
        data, sizes = varints(values)
        none = np.empty(0, np.int64)
        return cls(data, np.concatenate([[0], np.cumsum(sizes)]), none, none)

    def rows(self, start: np.ndarray, stop: np.ndarray) -> "Slices":
        return dataclasses.replace(self, start=start, stop=stop)


Column: TypeAlias = Ragged | Slices | np.ndarray | Strings
"""Ragged or Slices for ragged features, an array [n] for single values, strings [n]."""

Piece: TypeAlias = Any
"""Bytes of each row, binary [n], or a scalar where all rows have the same."""


def serialize(features: Sequence[schema.Feature], columns: Mapping[str, Column]) -> pa.Array:
    """Serialized `tf.train.Example`s: binary [n]."""
    pieces: list[Piece] = []
    total: np.ndarray | int = 0
    for feature in features:
        entry, length = _entry(feature, columns[feature.name])
        pieces += entry
        total = total + length
    return join(_constant(b"\x0a"), _lengths(total), *pieces)


def join(*pieces: Piece) -> pa.Array:
    """Concatenates the pieces row by row; at least one is an array."""
    return pc.binary_join_element_wise(*pieces, _constant(b""))


def _entry(feature: schema.Feature, column: Column) -> tuple[list[Piece], np.ndarray]:
    """An entry of the map Features.feature, {1: key, 2: Feature}: its pieces and length.

    In front of the payload, from the outside in, stand the tag and length of the entry, the
    key, the Feature, its list and, where it holds anything, the packed field.
    """
    key = feature.name.encode()
    payload, tag = _payload(feature, column)
    size = binary_lengths(payload)
    always = feature.dtype == "bytes" or not feature.ragged
    filled = np.ones(len(size), bool) if always else size > 0
    listed = np.where(filled, 1 + varint_length(size) + size, 0)
    value = 1 + varint_length(listed) + listed
    head = b"\x0a" + bytes([len(key)]) + key + b"\x12"
    entry = len(head) + varint_length(value) + value
    if filled.all():
        packed: list[Piece] = [_constant(b"\x0a"), _lengths(size)]
    else:
        prefix = join(_constant(b"\x0a"), varint_column(size))
        packed = [pc.if_else(pa.array(filled), prefix, b"")]
    pieces = [
        _constant(b"\x0a"), _lengths(entry), _constant(head), _lengths(value), _constant(tag),
        _lengths(listed), *packed,
    ]  # fmt: skip
    return [*_merged(pieces), payload], 1 + varint_length(entry) + entry


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring scalars as one: rows of equal lengths cost no work."""
    merged: list[Piece] = []
    for piece in pieces:
        if merged and isinstance(piece, pa.Scalar) and isinstance(merged[-1], pa.Scalar):
            merged[-1] = _constant(merged[-1].as_py() + piece.as_py())
        else:
            merged.append(piece)
    return merged


def _lengths(values: np.ndarray | int) -> Piece:
    """Lengths as varints: one scalar where all are equal."""
    values = np.atleast_1d(values)
    if len(values) and (values == values[0]).all():
        return _constant(varints(values[:1])[0].tobytes())
    return varint_column(values)


def _payload(feature: schema.Feature, column: Column) -> tuple[pa.Array, bytes]:
    """The values of each row as bytes, and the tag of their kind in Feature."""
    if feature.dtype == "bytes":
        return pa.array(column).cast(pa.binary()), b"\x0a"
    if isinstance(column, Slices):
        begin = column.ends[column.start]
        return byte_ranges(column.data, begin, column.ends[column.stop] - begin), b"\x1a"
    ragged = column if isinstance(column, Ragged) else _one_each(np.asarray(column))
    if feature.dtype == "int64":
        data, sizes = varints(ragged.values)
        ends = np.concatenate([[0], np.cumsum(sizes)])
        return binary_array(data, ends[ragged.offsets]), b"\x1a"
    data = np.ascontiguousarray(ragged.values, "<f4").view(np.uint8)
    return binary_array(data, ragged.offsets * 4), b"\x12"


def _one_each(values: np.ndarray) -> Ragged:
    return Ragged(values, np.arange(len(values) + 1))


def byte_ranges(data: np.ndarray, start: np.ndarray, length: np.ndarray) -> pa.Array:
    """Ranges of bytes as binary [n], by Arrow's views: 16 bytes that say where a row is.

    Gathering byte by byte with NumPy takes seven times as long.
    """
    inline = 12  # a view of so few bytes holds them itself
    views = np.zeros((len(start), 4), np.int32)
    views[:, 0], views[:, 3] = length, np.where(length > inline, start, 0)
    if len(data):
        place = np.minimum(start[:, None] + np.arange(inline), len(data) - 1)
        head = np.where(np.arange(inline) < length[:, None], data[place], 0).astype(np.uint8)
        short = length <= inline
        content = views.view(np.uint8).reshape(-1, 16)
        content[short, 4:] = head[short]
        content[~short, 4:8] = head[~short, :4]
    buffers = [None, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(start), buffers).cast(pa.binary())


def _constant(value: bytes) -> pa.Scalar:
    return pa.scalar(value, pa.binary())


def binary_array(data: np.ndarray, offsets: np.ndarray) -> pa.Array:
    """Bytes uint8 and offsets [n + 1] as binary [n], without a copy of the bytes."""
    buffers = [None, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)


def binary_lengths(rows: pa.Array) -> np.ndarray:
    return pc.binary_length(rows).to_numpy().astype(np.int64)


def varint_length(values: np.ndarray) -> np.ndarray:
    """Bytes of each non-negative integer as a varint; ten of a negative one."""
    size = np.ones(len(values), np.int64)
    if not len(values):
        return size
    limit = 7
    while limit < 64 and values.max() >> limit:
        size += values >= 1 << limit
        limit += 7
    size[values < 0] = 10
    return size


def varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] as varints: their bytes, one after the other, and each one's size."""
    values = np.asarray(values, np.int64)
    sizes = varint_length(values)
    widest = int(sizes.max()) if len(values) else 1
    if widest == 1:
        return values.astype(np.uint8), sizes
    table = np.empty((len(values), widest), np.uint8)
    rest = values.view(np.uint64)
    for step in range(widest):
        table[:, step] = (rest & np.uint64(0x7F)) | ((sizes > step + 1) * np.uint64(0x80))
        rest = rest >> np.uint64(7)
    return table[np.arange(widest) < sizes[:, None]], sizes


def varint_column(values: np.ndarray) -> pa.Array:
    data, sizes = varints(values)
    return binary_array(data, np.concatenate([[0], np.cumsum(sizes)]))


def _crc_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0x82F63B78), table >> 1)
    return table.astype(np.uint32)


_CRC_TABLE = _crc_table()


def _crc_of_uint64(values: np.ndarray) -> np.ndarray:
    """CRC-32C of the eight little-endian bytes of each value: uint32 [n]."""
    crc = np.full(len(values), 0xFFFFFFFF, np.uint32)
    for byte in range(8):
        low = ((values >> np.uint64(8 * byte)) & np.uint64(0xFF)).astype(np.uint32)
        crc = _CRC_TABLE[(crc ^ low) & np.uint32(0xFF)] ^ (crc >> np.uint32(8))
    return ~crc


def masked(crc: np.ndarray) -> np.ndarray:
    """TFRecord's mask of a checksum: uint32 [n]."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def tfrecords(records: pa.Array) -> Buffer:
    """Records [n] in TFRecord framing, ready to be appended to a file."""
    if not len(records):
        return pa.py_buffer(b"")
    lengths = binary_lengths(records).astype("<u8")
    head = np.empty((len(records), 12), np.uint8)
    head[:, :8] = lengths.view(np.uint8).reshape(-1, 8)
    head[:, 8:] = masked(_crc_of_uint64(lengths)).astype("<u4").view(np.uint8).reshape(-1, 4)
    crc = np.fromiter(map(google_crc32c.value, records.to_pylist()), np.uint32, len(records))
    foot = masked(crc).astype("<u4").view(np.uint8)
    steps = np.arange(len(records) + 1)
    framed = pc.binary_join_element_wise(
        binary_array(head.reshape(-1), steps * 12), records, binary_array(foot, steps * 4),
        _constant(b""),
    )  # fmt: skip
    size = int(np.frombuffer(framed.buffers()[1], np.int32)[len(framed)])
    return framed.buffers()[2].slice(0, size)
