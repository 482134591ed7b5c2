"""Calls of a servable that nobody should send, most of them valid but for one or two things."""

import collections

import numpy as np
import tensorflow as tf

from export import native, requests, signatures
from tests.small_dataset import MAX_HISTORY, SOURCE_ITEMS, TARGET_ITEMS

TEXTS = ("", "s2", "t3", "unknown", "é\U0001f600", b"\xff\xfe\x00", b"\0", "x" * 5000, "\n")
TEXTS = np.array(TEXTS, dtype=object)
NUMBERS = np.array([0.0, -1.0, np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45])
IDS = np.array([0, 1, 2, 5, TARGET_ITEMS - 1, SOURCE_ITEMS, 10**9, -1, -(2**63), 2**63 - 1])


class Fuzzer:
    """Calls from a seed; most are valid but for one or two things."""

    def __init__(self, seed, session):
        self.rng = np.random.default_rng(seed)
        self.session = session
        encode_user = session.signatures[signatures.ENCODE_USER]
        self.encoded = encode_user.outputs
        self.context = [name for name in requests.CONTEXT if name in encode_user.inputs]
        self.times = [name for name in requests.HISTORY_OF_TIMES if name in encode_user.inputs]
        read = (*self.context, *self.times)
        nobody = requests.user_inputs([requests.Request((), (), ())], read)
        self.encoder = session.run(signatures.ENCODE_USER, nobody)[signatures.ENCODER][0]

    def one_of(self, values):
        return values[self.rng.integers(len(values))]

    def some_of(self, values, size):
        return values[self.rng.integers(len(values), size=size)]

    def chance(self, probability):
        return self.rng.random() < probability

    def call(self):
        signature = self.one_of(list(self.session.signatures))
        inputs = getattr(self, f"_{signature}")()
        if self.chance(0.05) and inputs:
            del inputs[self.one_of(list(inputs))]
        if self.chance(0.05) and inputs:
            inputs[self.one_of(list(inputs))] = self._other_dtype()
        if self.chance(0.02):
            inputs["no such input"] = np.zeros(3, np.float32)
        return signature, inputs

    def _shape(self, rows):
        if self.chance(0.12):
            return tuple(self.rng.integers(0, 4, size=self.rng.integers(0, 5)))
        if self.chance(0.05):
            rows += 1
        if self.chance(0.01):
            return (rows, int(self.rng.integers(1000, 20_000)))
        return rows, int(self.rng.integers(0, 2 * MAX_HISTORY + 2))

    def _texts(self, rows):
        shape = self._shape(rows)
        known = TEXTS[: 5 if np.prod(shape) > 100 else None]
        return np.array(self.some_of(known, shape), dtype=object)

    def _other_dtype(self):
        shape = self._shape(2)
        return self.rng.integers(-5, 5, size=shape).astype(
            self.one_of([np.int64, np.float32, np.bool_, np.float16, np.int32])
        )

    def _rows(self):
        return int(self.one_of([0, 1, 1, 1, 1, 2, 2, 3, 3, 50]))

    def _ids(self, name, rows):
        texts = self._texts(rows)
        width = texts.shape[1] if texts.ndim > 1 else 0
        lengths = self.rng.integers(0, width + 1, size=rows)
        if self.chance(0.05) and rows:
            lengths[self.rng.integers(rows)] = self.one_of((-1, width + 1, -(2**63), 2**63 - 1))
        if self.chance(0.03):
            lengths = lengths[: self.rng.integers(3)]
        return {name: texts, requests.length_of(name): lengths}

    def _score(self):
        rows = self._rows()
        return self._encode_user(rows) | self._ids("candidates", rows)

    def _encode_user(self, rows=None):
        rows = self._rows() if rows is None else rows
        made = self._ids("source_history", rows) | self._ids("target_history", rows)
        for name in self.context:
            size = rows + int(self.chance(0.03))
            made[name] = self.some_of(TEXTS if name == requests.USER_ID else IDS, size)
        for name in self.times:
            beside = made[requests.HISTORY_OF_TIMES[name]].shape
            made[name] = self.some_of(IDS, self._shape(rows) if self.chance(0.05) else beside)
        return made

    def _score_encoded(self):
        rows = self._rows()
        made = self._ids("candidates", rows)
        for name, info in self.encoded.items():
            shape = [rows, *info.shape[1:]]
            if self.chance(0.05):
                shape[self.rng.integers(len(shape))] += 1
            if name == signatures.ENCODER:
                made[name] = np.full(shape, self.encoder + int(self.chance(0.05)))
                continue
            if name.endswith("_mask"):
                made[name] = self.rng.random(shape) < self.rng.random()
                continue
            made[name] = self.rng.normal(size=shape).astype(np.float32)
            if self.chance(0.3) and made[name].size:
                made[name].flat[self.rng.integers(made[name].size)] = self.one_of(NUMBERS)
        return made

    def _serving_default(self):
        shape = (self._rows(),) if self.chance(0.9) else self._shape(2)
        made = np.empty(shape, dtype=object)
        for i in range(made.size):
            made.flat[i] = self._example()
        return {"examples": made}

    def _example(self):
        example = tf.train.Example()
        for name in ("source_history", "target_history", "candidates", "labels", "user_id"):
            if name in self.context or self.chance(0.1):
                continue
            feature = example.features.feature[name]
            size = int(self.one_of([0, 1, 3, 20, 3000 if self.chance(0.05) else 5]))
            for times in self.times:
                if requests.HISTORY_OF_TIMES[times] == name and self.chance(0.95):
                    beside = example.features.feature[times].int64_list
                    beside.value.extend(self.some_of(IDS, size))
            kind = self.rng.random()
            if kind < 0.94:
                feature.int64_list.value.extend(self.some_of(IDS, size))
            elif kind < 0.97:
                feature.float_list.value.extend(self.some_of(NUMBERS, size))
            else:
                feature.bytes_list.value.extend([b"\xff"] * size)
        for name in self.context:
            size = int(self.one_of([0, 1, 1, 1, 1, 1, 1, 1, 1, 2]))
            feature = example.features.feature[name]
            if self.chance(0.95) == (name != requests.USER_ID):
                feature.int64_list.value.extend(self.some_of(IDS, size))
            else:
                feature.bytes_list.value.extend(self.rng.bytes(7) for _ in range(size))
        serialized = bytearray(example.SerializeToString())
        if self.chance(0.1) and serialized:
            for _ in range(self.rng.integers(1, 4)):
                serialized[self.rng.integers(len(serialized))] = self.rng.integers(256)
        if self.chance(0.05):
            serialized = serialized[: self.rng.integers(len(serialized) + 1)]
        if self.chance(0.03):
            return self.rng.bytes(self.rng.integers(100))
        return bytes(serialized)


def outcome(session, signature, inputs):
    """Says whether a call was "answered" or "refused"; fails on anything else."""
    try:
        found = session.run(signature, inputs)
    except native.InvalidArgumentError:
        return "refused"
    for name, value in found.items():
        if value.dtype.kind == "f":
            assert np.isfinite(value).all(), (signature, name)
    if signatures.CTR in found:
        ctr = found[signatures.CTR]
        assert ((ctr >= 0) & (ctr <= 1)).all()
        assert ctr.shape == found[signatures.LOGIT].shape
    return "answered"


def fuzz(session, seed, count):
    fuzzer = Fuzzer(seed, session)
    tally = collections.Counter()
    for _ in range(count):
        signature, inputs = fuzzer.call()
        tally[signature, outcome(session, signature, inputs)] += 1
    return tally


def check(tally, count):
    assert sum(tally.values()) == count
    # A fuzzer whose every request were refused at the door would show nothing.
    for signature in (
        signatures.SERVING_DEFAULT,
        signatures.SCORE,
        signatures.ENCODE_USER,
        signatures.SCORE_ENCODED,
    ):
        assert tally[signature, "answered"] > count / 50
        assert tally[signature, "refused"] > count / 50
