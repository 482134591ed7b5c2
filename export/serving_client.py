"""Requests → scores of a served model: retries, one deadline, users encoded ahead.

What a transport does (export/transports.py) is one try of one call; the rest is here. A call
with no requests is answered here, with nothing. What a server cannot take is refused before
it is sent: TF Serving's batcher ends the whole server over a wrong rank or a call of no rows.
"""

import abc
import dataclasses
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from export import requests
from export.requests import Inputs, Request
from export.version_files import check_number
from sitn_tf.errors import InputError

FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
LONGEST_DEADLINE = 86_400.0
"""A day: sockets take no time without an end."""
MAX_ROWS = 128
"""Rows of a call: the largest batch of the warm-up, and of export/serving/batching."""

OTHER_VERSION = "encoded by another version"
"""What a model says of a user that other weights encoded (export/signatures.py)."""

_RANKS = {
    name: rank
    for ids in (requests.SOURCE_HISTORY, requests.TARGET_HISTORY, requests.CANDIDATES)
    for name, rank in ((ids, 2), (requests.length_of(ids), 1))
}
_RANKS |= dict.fromkeys(requests.HISTORY_OF_TIMES, 2)
_RANKS |= dict.fromkeys((*requests.CONTEXT, requests.EXAMPLES, requests.ENCODER), 1)

T = TypeVar("T")


class ServerError(Exception):
    """The server refused or failed.

    Attributes:
      status: canonical code over gRPC, "HTTP 400" over REST.
      message: what the server said.
      retryable: asking again may help.
      missing: the model or the version is not served (any more).
      refused: the request was at fault, and would be again.
    """

    def __init__(
        self, status: str, message: str, retryable: bool = False, missing: bool = False
    ) -> None:
        self.status, self.message = status, message
        self.retryable, self.missing = retryable, missing
        self.refused = status in ("INVALID_ARGUMENT", "HTTP 400")
        super().__init__(f"{status}: {message}")


class DeadlineExceededError(ServerError):
    """No answer in time, over all tries."""

    def __init__(self, deadline: float, last: str) -> None:
        super().__init__("DEADLINE_EXCEEDED", f"no answer in {deadline:g} s ({last})")


def with_retries(
    attempt: Callable[[float], T],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    of: float | None = None,
) -> T:
    """Calls `attempt(seconds left)` until it answers, with growing, random pauses.

    Args:
      deadline: seconds from now.
      of: seconds that the whole call had, if it had begun before, for the error to name.

    Raises:
      DeadlineExceededError: `deadline` seconds are over.
      ServerError: an error that asking again cannot mend.
    """
    end = clock() + deadline
    pause = FIRST_PAUSE
    last = "not tried"
    while (left := end - clock()) > 0:
        try:
            return attempt(left)
        except ServerError as error:
            if not error.retryable:
                raise
            last = str(error)
        # Random, so that clients turned away together do not come back together.
        sleep(min(random.uniform(pause / 2, pause), max(end - clock(), 0.0)))
        pause = min(2 * pause, LONGEST_PAUSE)
    raise DeadlineExceededError(of or deadline, last)


def check_sendable(inputs: Mapping[str, Any], max_rows: int | None) -> None:
    """Refuses what a server cannot take, whatever the model.

    Raises:
      InputError: another rank than an input of that name has, no rows, differing numbers of
        rows, or more than `max_rows`.
    """
    rows = {}
    for name, value in inputs.items():
        shape = np.shape(value)
        rank = _RANKS.get(name, max(len(shape), 1))
        if len(shape) != rank:
            raise InputError(f"{name} has shape {list(shape)}", f"give it {rank} dimension(s)")
        rows[name] = shape[0]
    if len(set(rows.values())) > 1:
        raise InputError(f"inputs differ in their number of rows: {rows}")
    count = next(iter(rows.values()), 0)
    if count == 0:
        raise InputError("a call of no rows", "send one row at least")
    if max_rows is not None and count > max_rows:
        raise InputError(
            f"a call of {count} rows, the most is {max_rows}",
            "send several calls, or make the client with the max_rows of the server",
        )


@dataclasses.dataclass(frozen=True)
class PredictCall:
    """What is asked of the server, whatever the transport.

    Attributes:
      outputs: those wanted, () for all.
      version: that is to answer; None for the newest.
    """

    signature: str
    inputs: Mapping[str, Any]
    outputs: Collection[str] = ()
    version: int | None = None


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What `score_encoded` needs of one user, `[1, ...]` each, and the version that made it."""

    version: int
    tensors: Inputs


@dataclasses.dataclass
class EncodedUser:
    """A user encoded ahead, to be kept for as long as the request's histories stay.

    Attributes:
      request: what was encoded; its candidates are not.
      encoding: as last made. A client replaces it when its version is served no more.
    """

    request: Request
    encoding: Encoding


class Client(abc.ABC):
    """Signatures of a served model by name; safe to share between threads.

    Args:
      address: host:port.
      model: its name in models.config.
      version: None for the newest that is served.
      deadline: seconds of a call, retries included.
      max_rows: most rows of a call; None for a server that has no bound.

    Raises:
      InputError: a deadline that no call can keep, or a version that no server can have.
    """

    def __init__(
        self,
        address: str,
        model: str = "sitn",
        version: int | None = None,
        deadline: float = 1.0,
        max_rows: int | None = MAX_ROWS,
    ) -> None:
        if not 0.0 < deadline <= LONGEST_DEADLINE:
            raise InputError(
                f"deadline={deadline} is not a number of seconds in (0, {LONGEST_DEADLINE:g}]"
            )
        if version is not None:
            check_number(version)
        self.address, self.model, self.version = address, model, version
        self.deadline, self.max_rows = deadline, max_rows

    @abc.abstractmethod
    def _predict_once(self, call: PredictCall, timeout: float) -> tuple[Inputs, int | None]:
        """One try; returns the outputs and the version that answered, where the protocol says."""

    @abc.abstractmethod
    def _newest_once(self, timeout: float) -> int | None:
        """One try to ask for the newest served version; None where answers name theirs."""

    @abc.abstractmethod
    def input_names(self, signature: str) -> list[str]:
        """What the served model takes; raises ServerError where it does not say."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    def predict(self, signature: str, inputs: Inputs, outputs: Collection[str] = ()) -> Inputs:
        """Outputs by name.

        Args:
          outputs: those wanted, () for all. Over gRPC only these are sent, from a graph of their
            own that is warm for `ctr` alone (export/warmup.py).

        Raises:
          InputError: the server cannot take the inputs, they were not sent.
          ServerError: refused, failed, or not answered in time.
        """
        return self._predict(PredictCall(signature, inputs, outputs, self.version), self.deadline)

    def score(self, asked: Sequence[Request]) -> list[np.ndarray]:
        """Probability of each candidate of each request."""
        if not asked:
            return []
        answer = self.predict(requests.SCORE, requests.score_inputs(asked))
        return requests.own_scores(answer[requests.CTR], asked)

    def encode_user(self, asked: Sequence[Request]) -> list[EncodedUser]:
        """The users of the requests, for `score_encoded`."""
        return [
            EncodedUser(request, encoding)
            for request, encoding in zip(asked, self._encode(asked, self.deadline), strict=True)
        ]

    def score_encoded(
        self, users: Sequence[EncodedUser], candidates: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        """Probability of each candidate, for users encoded earlier.

        Each version that encoded some of them is asked for those, by its number. Users of a
        version that is served no more are encoded again, in place, by the one that is.
        """
        end = time.monotonic() + self.deadline
        scores: list[np.ndarray] = [np.empty(0)] * len(users)
        left = list(range(len(users)))
        if len(candidates) != len(users):
            raise InputError(f"{len(users)} users and candidates for {len(candidates)}")
        while left:
            stale = []
            encodings = [users[i].encoding for i in left]  # another thread may replace one
            for version in {e.version for e in encodings}:
                rows = [i for i, e in zip(left, encodings, strict=True) if e.version == version]
                own = [e for e in encodings if e.version == version]
                shown = [candidates[i] for i in rows]
                try:
                    ctr = self._score_encoded(own, shown, end - time.monotonic())
                except ServerError as error:
                    if not error.missing and OTHER_VERSION not in error.message:
                        raise
                    stale += rows
                else:
                    for i, row, items in zip(rows, ctr, shown, strict=True):
                        scores[i] = row[: len(items)]
            again = self._encode([users[i].request for i in stale], end - time.monotonic())
            for i, encoding in zip(stale, again, strict=True):
                users[i].encoding = encoding
            left = stale
        return scores

    def _score_encoded(
        self, encodings: Sequence[Encoding], shown: Sequence[Sequence[str]], deadline: float
    ) -> np.ndarray:
        """Scores of users that one version encoded, by that version."""
        first = encodings[0]
        tensors = {n: np.concatenate([e.tensors[n] for e in encodings]) for n in first.tensors}
        inputs = {**tensors, **requests.candidate_inputs(shown)}
        call = PredictCall(requests.SCORE_ENCODED, inputs, version=first.version)
        return self._predict(call, deadline)[requests.CTR]

    def _encode(self, asked: Sequence[Request], deadline: float) -> list[Encoding]:
        """Encodings by one version, whose number they carry."""
        if not asked:
            return []
        inputs = requests.user_inputs(asked)
        check_sendable(inputs, self.max_rows)

        def attempt(left: float) -> tuple[Inputs, int | None]:
            version = self._newest_once(left) if self.version is None else self.version
            try:
                tensors, answered = self._predict_once(
                    PredictCall(requests.ENCODE_USER, inputs, version=version), left
                )
            except ServerError as error:
                if error.missing and version != self.version:  # it went meanwhile
                    raise ServerError(error.status, error.message, retryable=True) from error
                raise
            return tensors, version if answered is None else answered

        tensors, version = with_retries(attempt, deadline, of=self.deadline)
        assert version is not None
        return [
            Encoding(version, {name: value[i : i + 1] for name, value in tensors.items()})
            for i in range(len(asked))
        ]

    def _predict(self, call: PredictCall, deadline: float) -> Inputs:
        check_sendable(call.inputs, self.max_rows)
        return with_retries(
            lambda left: self._predict_once(call, left)[0], deadline, of=self.deadline
        )
