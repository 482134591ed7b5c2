"""The serving graph: a trained scorer, its item vectors and vocabularies → four signatures.

`serving_default`  examples [R] string, serialized stage-2 `tf.train.Example`s
`score`            ids of source_history [R, S], target_history [R, T], candidates [R, C]
`encode_user`      ids of source_history, target_history → what the candidates need of a
                   user, and encoder [R] int64, which says what encoded it
`score_encoded`    the outputs of encode_user, and ids of candidates [R, C]

Of a model that reads more of a request than its items (Scorer.request_inputs), `score` and
`encode_user` take this context too, as far as it is read: request_time and history_time [R] int64,
Unix seconds, and user_id [R] string. A time that is not positive and an empty user are not known;
an Example may lack any. Of a model that reads when clicks were (Scorer.click_inputs), they take
source_times [R, S] and target_times [R, T] int64, Unix seconds, too: beside each item its time; an
Example has as many times as items.

Ids of a row are raw strings, and beside each tensor stands how many of each row are real:
source_history_length [R] int64 and so on. What lies past the length is padding whatever its
value, so requests of different widths can be put into one batch by anyone: TF Serving's
batcher pads a tensor with that tensor's own first element. "" within the length is no item.
The last `max_history` items of a history count.

Scores are ctr [R, C] float32, the calibrated probability, and logit [R, C] float32, its
log-odds; padding has ctr 0 and logit PAD_LOGIT. With outputs="ctr" the signatures give ctr
alone, in half the bytes. An unknown id, or a number that is no id of
this vocabulary, is the out-of-vocabulary item. Refused with INVALID_ARGUMENT: a wrong rank,
differing numbers of rows, times that are not as many as their items, a length that is negative or
over the row's width, over `max_candidates` candidates, an Example that does not parse, numbers that
are not finite, a user encoded by another version.
"""

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from export.calibration import IDENTITY, Calibration
from export.item_vectors import FOLD_ROWS, ItemVectors, fold_popularity
from export.options import DEFAULT_MAX_CANDIDATES, Outputs, TableKind
from export.requests import (
    CANDIDATES,
    CTR,
    ENCODE_USER,
    ENCODER,
    EXAMPLES,
    HISTORY_OF_TIMES,
    LOGIT,
    SCORE,
    SCORE_ENCODED,
    SERVING_DEFAULT,
    SOURCE_HISTORY,
    TARGET_HISTORY,
    length_of,
)
from sitn_tf import data, schema
from sitn_tf.models.scorer import Scorer

PAD_LOGIT = -1e9

Tensors = dict[str, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class ServingOptions:
    """What the graph fixes.

    Attributes:
      max_history: items of a history that count, the most recent.
      max_candidates: longest row of candidates that is answered.
      calibration: map of the scorer's logits.
      tables: how item vectors are stored.
      outputs: what the saved signatures that score give.
    """

    max_history: int
    max_candidates: int = DEFAULT_MAX_CANDIDATES
    calibration: Calibration = IDENTITY
    tables: TableKind = "float32"
    outputs: Outputs = "both"


class Servable:
    """A scorer's serving graph. Not a `tf.Module`: see `save`.

    Args:
      scorer: the trained model; its item embeddings are not used, `vectors` are.
      vectors: `[V, W]` float32 item vectors by domain, in parts (`item_vectors.fold`).
      vocabularies: vocabulary file of item ids by domain.
      options: bounds and calibration.
    """

    def __init__(
        self,
        scorer: Scorer,
        vectors: Mapping[str, Iterable[np.ndarray]],
        vocabularies: Mapping[str, pathlib.Path],
        options: ServingOptions,
    ) -> None:
        self.options = options
        self._scorer = scorer
        digest = hashlib.sha256()
        self._items = {
            domain: ItemVectors(
                _hashed(vectors[domain], digest), items.table.size, options.tables, domain
            )
            for domain, items in scorer.items.items()
        }
        popularity = fold_popularity(scorer)
        if popularity is not None:
            self._slope, added = popularity
            self._added = tf.Variable(added, trainable=False, name="popularity")
        self._has_popularity = popularity is not None
        self._lookups = {domain: _lookup_table(vocabularies[domain]) for domain in scorer.items}
        self.fingerprint = _fingerprint(digest, scorer.weights)
        self._context_specs = {
            feature.name: tf.TensorSpec([None], data.TF_DTYPES[feature.dtype], feature.name)
            for feature in scorer.request_inputs
        }
        self._times_specs = {
            feature.name: tf.TensorSpec([None, None], tf.int64, feature.name)
            for feature in scorer.click_inputs
        }
        one_user = tf.zeros([1, options.max_history], tf.int64)
        nothing = {name: tf.zeros([1], spec.dtype) for name, spec in self._context_specs.items()}
        nothing |= dict.fromkeys(self._times_specs, one_user)
        histories = {feature.name: one_user for feature in schema.HISTORY_OF_DOMAIN.values()}
        self._encoded_specs = {
            name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
            for name, tensor in self._encode(histories | nothing).items()
        }
        self._encoded_specs[ENCODER] = tf.TensorSpec([None], tf.int64, ENCODER)

    # ---- signatures: tensors in, tensors out ----

    def serving_default(self, examples: tf.Tensor) -> Tensors:
        """`[R]` serialized Examples → ctr and logit `[R, C]`, C the longest row's."""
        examples = tf.ensure_shape(examples, [None])
        parsed = data.parse(examples, self._scorer.reads, may_lack=True)
        ids = {
            domain: self._known_ids(parsed[history.name], domain)
            for domain, history in schema.HISTORY_OF_DOMAIN.items()
        }
        candidates = self._known_ids(parsed[CANDIDATES], schema.TARGET)
        return self._score(self._encode(parsed | self._histories(ids, parsed)), candidates)

    def score(self, **tensors: tf.Tensor) -> Tensors:
        """Ids of histories and candidates, times and context → ctr and logit `[R, C]`."""
        _check_rows(*tensors.values())
        candidates = self._ids(tensors, CANDIDATES, schema.TARGET)
        return self._score(self._encode(self._user(tensors)), candidates)

    def encode_user(self, **tensors: tf.Tensor) -> Tensors:
        """Ids of both histories, times and context → tensors of R rows, otherwise of fixed shapes.

        Sequences are padded to `max_history`, so that users encoded in different requests
        can be scored in one.
        """
        _check_rows(*tensors.values())
        user = self._user(tensors, self.options.max_history)
        rows = tf.shape(user[TARGET_HISTORY])[:1]
        encoder = tf.fill(rows, tf.constant(self.fingerprint, tf.int64))
        return {**self._encode(user), ENCODER: encoder}

    def score_encoded(self, **tensors: tf.Tensor) -> Tensors:
        """What encode_user gave, and ids of candidates → ctr and logit `[R, C]`."""
        _check_rows(*tensors.values())
        encoded = {
            name: self._finite(tf.ensure_shape(tensors[name], spec.shape), name)
            for name, spec in self._encoded_specs.items()
        }
        # A cached user outlives a hot swap: other weights would score it, and wrongly.
        tf.debugging.assert_equal(
            encoded.pop(ENCODER),
            tf.constant(self.fingerprint, tf.int64),
            "the user was encoded by another version: encode it again",
        )
        return self._score(encoded, self._ids(tensors, CANDIDATES, schema.TARGET))

    # ---- parts ----

    def _ids(self, tensors: Mapping[str, tf.Tensor], name: str, domain: str) -> tf.Tensor:
        """Raw ids `[R, W]` and their lengths `[R]` → ids `[R, W]` int64, 0 where padded."""
        raw = tf.ensure_shape(tensors[name], [None, None])
        length = tf.ensure_shape(tensors[length_of(name)], [None])
        width = tf.shape(raw, tf.int64)[1]
        tf.debugging.Assert(
            tf.reduce_all((length >= 0) & (length <= width)),
            [f"{length_of(name)} is not within 0 and the width of {name}:", length, width],
        )
        if domain not in self._lookups:  # the control that sees no source history
            return tf.zeros_like(raw, tf.int64)
        # Line i of the file has id i + 2, and the table gives -1 for what it lacks.
        known = self._lookups[domain].lookup(raw) + schema.FIRST_ID
        real = (tf.range(width) < length[:, tf.newaxis]) & (raw != "")
        return tf.where(real, known, tf.constant(schema.PAD_ID, tf.int64))

    def _user(self, tensors: Mapping[str, tf.Tensor], width: int | None = None) -> Tensors:
        """What is read of users: histories of ids, their times, and context `[R]`.

        Args:
          width: see `_history`.
        """
        for name in self._times_specs:
            history = HISTORY_OF_TIMES[name]
            tf.debugging.assert_equal(
                tf.shape(tf.ensure_shape(tensors[name], [None, None])),
                tf.shape(tf.ensure_shape(tensors[history], [None, None])),
                f"{name} has not a time for each item of {history}",
            )
        ids = {
            domain: self._ids(tensors, history.name, domain)
            for domain, history in schema.HISTORY_OF_DOMAIN.items()
        }
        context = {name: tf.ensure_shape(tensors[name], [None]) for name in self._context_specs}
        return context | self._histories(ids, tensors, width)

    def _histories(
        self,
        ids: Mapping[str, tf.Tensor],
        tensors: Mapping[str, tf.Tensor],
        width: int | None = None,
    ) -> Tensors:
        """`_history` of the ids of each domain, and of the times that the scorer reads, by name."""
        made = {}
        for domain, history in schema.HISTORY_OF_DOMAIN.items():
            made[history.name] = self._history(ids[domain], ids[domain], width)
            times = schema.TIMES_OF_DOMAIN[domain].name
            if times in self._times_specs:
                made[times] = self._history(ids[domain], tensors[times], width)
        return made

    def _known_ids(self, ids: tf.Tensor, domain: str) -> tf.Tensor:
        """Ids as sent; those of another vocabulary become out-of-vocabulary."""
        if domain not in self._items:
            return tf.zeros_like(ids)
        known = (ids >= 0) & (ids < self._items[domain].rows)
        return tf.where(known, ids, tf.constant(schema.OOV_ID, tf.int64))

    def _history(self, ids: tf.Tensor, values: tf.Tensor, width: int | None = None) -> tf.Tensor:
        """Of each row the values at its last `max_history` real ids, left-aligned.

        Args:
          ids: `[R, W]` int64, 0 anywhere pads.
          values: `[R, W]` int64: the ids, or what stands beside them.
          width: of the result; None means as wide as the longest row needs.
        """
        longest = self.options.max_history
        real = tf.cast(ids != schema.PAD_ID, tf.int32)
        later = tf.cumsum(real, axis=1, exclusive=True, reverse=True)
        length = tf.minimum(tf.reduce_sum(real, axis=1), longest)
        kept = tf.where((real > 0) & (later < longest))
        row = kept[:, 0]
        column = tf.gather(length, row) - 1 - tf.gather_nd(later, kept)
        columns = tf.constant(width) if width else tf.maximum(tf.reduce_max(length), 0)
        return tf.scatter_nd(
            tf.stack([row, tf.cast(column, tf.int64)], axis=1),
            tf.gather_nd(values, kept),
            tf.cast(tf.stack([tf.shape(ids)[0], columns]), tf.int64),
        )

    def _encode(self, user: Tensors) -> Tensors:
        """What `_user` gives → the scorer's encoded tensors."""
        histories = {}
        for domain, items in self._items.items():
            ids = user[schema.HISTORY_OF_DOMAIN[domain].name]
            histories[domain] = self._scorer.history_of(domain, ids, items.lookup(ids), user)
        return dict(self._scorer.encode(histories, user))

    def _score(self, encoded: Tensors, candidates: tf.Tensor) -> Tensors:
        tf.debugging.assert_less_equal(
            tf.shape(candidates)[1],
            self.options.max_candidates,
            f"a request has more than {self.options.max_candidates} candidates",
        )
        vectors = self._items[schema.TARGET].lookup(candidates)
        raw = self._scorer.score(encoded, vectors)
        if self._has_popularity:
            raw = self._slope * raw + tf.gather(self._added, candidates)
        logit = self._finite(calibrated(raw, self.options.calibration), LOGIT)
        real = candidates != schema.PAD_ID
        return {
            CTR: tf.where(real, tf.sigmoid(logit), 0.0),
            LOGIT: tf.where(real, logit, PAD_LOGIT),
        }

    @staticmethod
    def _finite(tensor: tf.Tensor, name: str) -> tf.Tensor:
        if not tensor.dtype.is_floating:
            return tensor
        return tf.debugging.check_numerics(tensor, f"{name} is not finite")

    # ---- saving ----

    def trace(self) -> dict[str, Any]:
        """The concrete function of every signature."""
        users = _id_specs(SOURCE_HISTORY) | _id_specs(TARGET_HISTORY)
        users |= self._times_specs | self._context_specs
        shown = _id_specs(CANDIDATES)
        examples = tf.TensorSpec([None], tf.string, EXAMPLES)
        return {
            SERVING_DEFAULT: _concrete(self.serving_default, examples=examples),
            SCORE: _concrete(self.score, **users, **shown),
            ENCODE_USER: _concrete(self.encode_user, **users),
            SCORE_ENCODED: _concrete(self.score_encoded, **self._encoded_specs, **shown),
        }

    def save(self, directory: str | pathlib.Path) -> dict[str, Any]:
        """Writes a SavedModel; returns its traced signatures, to be called from Python.

        These give ctr and logit even where the saved ones give ctr alone.

        What is saved is a bare module with the variables that the signatures read and the
        lookup tables: no Keras object, no optimiser, no layer that serving does not use.
        """
        traced = self.trace()
        carrier = tf.Module(name="sitn")
        read = {id(v): v for function in traced.values() for v in function.graph.variables}
        carrier.weights = list(read.values())
        carrier.lookups = dict(self._lookups)
        saved = traced
        if self.options.outputs == "ctr":
            saved = {name: _without_logit(function) for name, function in traced.items()}
        tf.saved_model.save(carrier, str(directory), signatures=saved)
        return traced


def calibrated(logits: tf.Tensor, calibration: Calibration) -> tf.Tensor:
    """`calibration.apply` in the graph, float32."""
    if calibration.is_identity:
        return logits
    mapped = logits
    if calibration.kind == "platt":
        mapped = calibration.slope * logits + calibration.intercept
    elif calibration.kind == "isotonic":
        mapped = _interpolate(logits, calibration.knots_x, calibration.knots_y)
    return mapped + calibration.shift


def _interpolate(x: tf.Tensor, knots_x: tuple[float, ...], knots_y: tuple[float, ...]) -> tf.Tensor:
    """Straight between knots, slope 1 outside them."""
    left_x = np.array([knots_x[0], *knots_x], np.float32)
    left_y = np.array([knots_y[0], *knots_y], np.float32)
    steps = np.diff(knots_y) / np.maximum(np.diff(knots_x), 1e-12)
    slope = np.array([1.0, *steps, 1.0], np.float32)
    flat = tf.reshape(x, [-1])
    interval = tf.searchsorted(np.array(knots_x, np.float32), flat, side="right")
    mapped = tf.gather(left_y, interval) + tf.gather(slope, interval) * (
        flat - tf.gather(left_x, interval)
    )
    return tf.reshape(mapped, tf.shape(x))


def _hashed(parts: Iterable[np.ndarray], digest: "hashlib._Hash") -> Iterator[np.ndarray]:
    """The same arrays, each put into the digest on its way."""
    for part in parts:
        digest.update(part.tobytes())
        yield part


def _fingerprint(digest: "hashlib._Hash", weights: Sequence[tf.Variable]) -> int:
    """An identity of weights and of what is in the digest, 63 bits."""
    for weight in weights:
        rows = weight.shape[0] if weight.shape.rank else 0
        for first in range(0, rows, FOLD_ROWS):
            digest.update(weight[first : first + FOLD_ROWS].numpy().tobytes())
        if not rows:
            digest.update(weight.numpy().tobytes())
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def _lookup_table(vocabulary: pathlib.Path) -> tf.lookup.StaticHashTable:
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary),
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    return tf.lookup.StaticHashTable(initializer, default_value=schema.OOV_ID - schema.FIRST_ID)


def _check_rows(first: tf.Tensor, *others: tf.Tensor) -> None:
    """Refuses differing numbers of rows: a single row would be broadcast to the others."""
    for other in others:
        tf.debugging.assert_equal(
            tf.shape(first)[0], tf.shape(other)[0], "inputs differ in their number of rows"
        )


def _id_specs(name: str) -> dict[str, tf.TensorSpec]:
    return {
        name: tf.TensorSpec([None, None], tf.string, name),
        length_of(name): tf.TensorSpec([None], tf.int64, length_of(name)),
    }


def _without_logit(function: Any) -> Any:
    """The same signature with ctr alone; what gives no ctr is as it was."""
    if LOGIT not in function.structured_outputs:
        return function
    positional, named = function.structured_input_signature
    specs = {spec.name: spec for spec in (*positional, *named.values())}
    return _concrete(lambda **tensors: {CTR: function(**tensors)[CTR]}, **specs)


def _concrete(function: Callable[..., Tensors], **specs: tf.TensorSpec) -> Any:
    return tf.function(function, autograph=False).get_concrete_function(**specs)
