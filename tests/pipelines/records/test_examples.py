"""The vectorised encoder is held to TensorFlow's parser, byte counts included."""

import numpy as np
import pyarrow as pa
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.records import examples
from sitn_tf import schema

INT = schema.Feature("an_int", "int64", False, "")
INTS = schema.Feature("ints", "int64", True, "")
FLOATS = schema.Feature("floats", "float32", True, "")
TEXT = schema.Feature("text", "bytes", False, "")
FEATURES = (INT, INTS, FLOATS, TEXT)

ints = st.integers(-(2**63), 2**63 - 1)
rows_of = st.lists(
    st.tuples(
        ints,
        st.lists(st.one_of(st.integers(0, 300), ints), max_size=30),
        st.lists(st.floats(width=32, allow_nan=False), max_size=5),
        st.text(max_size=200),
    ),
    min_size=1,
    max_size=6,
)


def encoded(rows: list[tuple[int, list[int], list[float], str]]) -> pa.Array:
    def ragged(column: int, dtype: type) -> examples.Ragged:
        flat = np.array([v for row in rows for v in row[column]], dtype)
        return examples.Ragged.of_lengths(flat, np.array([len(row[column]) for row in rows]))

    return examples.serialize(
        FEATURES,
        {
            "an_int": np.array([row[0] for row in rows], np.int64),
            "ints": ragged(1, np.int64),
            "floats": ragged(2, np.float32),
            "text": pa.array([row[3].encode("utf-8", "replace").decode() for row in rows]),
        },
    )


@settings(max_examples=150)
@given(rows_of)
def test_parses_to_what_was_encoded(rows):
    for (number, many, floats, text), raw in zip(rows, encoded(rows).to_pylist(), strict=True):
        example = tf.train.Example.FromString(raw)
        found = example.features.feature
        assert list(found["an_int"].int64_list.value) == [number]
        assert list(found["ints"].int64_list.value) == many
        assert list(found["floats"].float_list.value) == floats
        clean = text.encode("utf-8", "replace")
        assert list(found["text"].bytes_list.value) == [clean]
        assert len(raw) == example.ByteSize()  # lengths are minimal, nothing is left over


@settings(max_examples=80)
@given(st.lists(st.integers(0, 2**40), max_size=60), st.data())
def test_slices_encode_as_the_values_they_are_ranges_of(values, data):
    bound = st.integers(0, len(values))
    pairs = data.draw(st.lists(st.tuples(bound, bound), min_size=1, max_size=8))
    start, stop = np.array([sorted(pair) for pair in pairs]).T
    column = examples.Slices.of(np.array(values, np.int64)).rows(start, stop)
    raws = examples.serialize([INTS], {"ints": column}).to_pylist()
    for begin, end, raw in zip(start, stop, raws, strict=True):
        found = tf.train.Example.FromString(raw).features.feature["ints"]
        assert list(found.int64_list.value) == values[begin:end]


def test_tfrecords_are_what_tensorflow_reads(tmp_path):
    records = [b"", b"a", b"b" * 300, bytes(range(256)) * 50]
    path = tmp_path / "records"
    path.write_bytes(bytes(examples.tfrecords(pa.array(records, pa.binary()))))
    assert list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) == records
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for record in records:
            writer.write(record)
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()


def test_no_records_are_no_bytes():
    assert bytes(examples.tfrecords(pa.array([], pa.binary()))) == b""
    assert len(examples.serialize([INT], {"an_int": np.empty(0, np.int64)})) == 0


def test_varints_golden():
    # 300 = 0b10_0101100 is 1_0101100 0_0000010
    data, sizes = examples.varints(np.array([0, 127, 128, 300, -1]))
    assert data.tolist() == [0, 127, 0x80, 1, 0xAC, 2, *[0xFF] * 9, 1]
    assert sizes.tolist() == [1, 1, 2, 2, 10]
