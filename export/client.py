"""Asks a TF Serving server for scores, over gRPC or REST: one request, a check, or a load.

    python -m export.client --source_history=a,b --target_history=c --candidates=d,e
    python -m export.client --golden=SERVABLE/1                replays it, compares scores
    python -m export.client --golden=SERVABLE/1 --load=1000 --threads=8

--protocol=rest --address=localhost:8501 instead of gRPC at localhost:8500. A call has one
deadline, and is tried again within it while the server is unavailable or overloaded.
"""

import collections
import concurrent.futures
import dataclasses
import pathlib
import time
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from export import golden, requests
from export.requests import Request
from export.serving_client import Client, ServerError
from export.transports import make_client
from sitn_tf import cli, quiet
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "grpc", ["grpc", "rest"], "Of the server.", flag_values=FLAGS
)
_ADDRESS = flags.DEFINE_string("address", None, "host:port of the server.", flag_values=FLAGS)
_MODEL = flags.DEFINE_string("model", "sitn", "Name of the model.", flag_values=FLAGS)
_VERSION = flags.DEFINE_integer(
    "version", None, "That is asked; the newest if not given.", 1, flag_values=FLAGS
)
_DEADLINE = flags.DEFINE_float("deadline", 1.0, "Seconds of a call.", 1e-3, flag_values=FLAGS)
_SOURCE = flags.DEFINE_list("source_history", [], "Raw ids, oldest first.", flag_values=FLAGS)
_TARGET = flags.DEFINE_list("target_history", [], "Raw ids, oldest first.", flag_values=FLAGS)
_CANDIDATES = flags.DEFINE_list("candidates", [], "Raw ids to score.", flag_values=FLAGS)
_TIME = flags.DEFINE_integer(
    "request_time",
    None,
    "Unix seconds, for a model of ages, hour, weekday or idle.",
    flag_values=FLAGS,
)
_HISTORY_TIME = flags.DEFINE_integer(
    "history_time", None, "Newest in both histories, for a model of idle.", flag_values=FLAGS
)
_USER = flags.DEFINE_string("user_id", None, "For a model of users.", flag_values=FLAGS)
_SOURCE_TIMES = flags.DEFINE_list(
    "source_times", None, "Of source_history, Unix seconds, for a model of ages.", flag_values=FLAGS
)
_TARGET_TIMES = flags.DEFINE_list(
    "target_times", None, "Of target_history, Unix seconds, for a model of ages.", flag_values=FLAGS
)
_OF_A_REQUEST = (
    _SOURCE, _TARGET, _CANDIDATES, _TIME, _HISTORY_TIME, _USER, _SOURCE_TIMES, _TARGET_TIMES
)  # fmt: skip
_GOLDEN = flags.DEFINE_string(
    "golden", None, "A version, SERVABLE/1: its golden requests are sent.", flag_values=FLAGS
)
_LOAD = flags.DEFINE_integer("load", 0, "Golden requests to send in all.", 0, flag_values=FLAGS)
_THREADS = flags.DEFINE_integer("threads", 4, "Calls in flight, of --load.", 1, flag_values=FLAGS)


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load measured; latencies are the client's, retries included.

    Attributes:
      seconds: from the first call to the last answer.
      latency_ms: `[answered]` float64.
      errors: calls without an answer, by status.
    """

    seconds: float
    latency_ms: np.ndarray
    errors: Mapping[str, int]

    def __str__(self) -> str:
        lines = [f"{len(self.latency_ms) / self.seconds:.1f} requests/s"]
        if len(self.latency_ms):
            p50, p99 = np.percentile(self.latency_ms, [50, 99])
            lines.append(f"p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        lines += [f"{count} x {status}" for status, count in sorted(self.errors.items())]
        return ", ".join(lines)


def run_load(client: Client, asked: Sequence[Request], total: int, threads: int) -> LoadReport:
    """Sends `total` calls of one request each, `threads` in flight."""

    def call(i: int) -> tuple[float, str | None]:
        begin = time.perf_counter()
        try:
            client.score([asked[i % len(asked)]])
        except ServerError as error:
            return 0.0, error.status
        return 1e3 * (time.perf_counter() - begin), None

    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        done = list(pool.map(call, range(total)))
    seconds = time.perf_counter() - begin
    errors = collections.Counter(status for _, status in done if status is not None)
    answered = np.array([latency for latency, status in done if status is None])
    return LoadReport(seconds, answered, errors)


def check_golden(client: Client, version: pathlib.Path) -> golden.Difference:
    """Largest differences of served scores from those at export."""
    goldens = golden.read(version)
    served = golden.served(
        lambda batch: client.predict(requests.SCORE, requests.score_inputs(batch)),
        [g.request for g in goldens],
    )
    return golden.compare(served, [g.exported for g in goldens])


def explained(error: ServerError, client: Client, asked: Request | None = None) -> InputError:
    """What a server's error means for who asked, and what to do about it.

    Args:
      asked: the request, where it was given by hand.
    """
    what, said = client.address, " ".join(str(error).split())
    if error.missing:
        which = "" if client.version is None else f", version {client.version}"
        return InputError(
            f"{what} serves no model {client.model!r}{which} ({said})",
            "name one of its models.config; SERVABLE must hold a version",
        )
    if not error.refused:
        return InputError(
            f"{what} did not answer ({said})",
            f"is TF Serving running there, with the model {client.model!r}?",
        )
    try:
        wanted = client.input_names(requests.SCORE)
    except (ServerError, KeyError):  # a proxy that passes no metadata, or another model
        return InputError(f"{what} refused the request ({said})")
    message = f"{what} refused the request ({said}): score takes {', '.join(wanted)}"
    if asked is None:
        return InputError(message)
    given = requests.score_inputs([asked])
    lacking = [f"{name}=VALUE" for name in wanted if name not in given]
    extra = [f"no {name}" for name in given if name not in wanted]
    return InputError(message, f"give {' and '.join(lacking + extra)}" if lacking + extra else "")


def main(_: list[str]) -> int:
    """Does what the flags ask.

    The status is 1 where golden scores differ, or no call of a load is answered.
    """
    _check_what_is_asked()
    if _PROTOCOL.value == "grpc":
        quiet.import_tensorflow()  # for its protos
    client = make_client(
        _PROTOCOL.value,
        _ADDRESS.value,
        model=_MODEL.value,
        version=_VERSION.value,
        deadline=_DEADLINE.value,
    )
    asked = None
    try:
        if _GOLDEN.value:
            return _golden(client, pathlib.Path(_GOLDEN.value), _LOAD.value, _THREADS.value)
        asked = Request(
            tuple(_SOURCE.value),
            tuple(_TARGET.value),
            tuple(_CANDIDATES.value),
            _TIME.value,
            _USER.value,
            _HISTORY_TIME.value,
            _times(_SOURCE_TIMES),
            _times(_TARGET_TIMES),
        )
        for ctr, item in sorted(
            zip(client.score([asked])[0].tolist(), asked.candidates, strict=True), reverse=True
        ):
            print(f"{ctr:.6f}  {item}")
        return 0
    except ServerError as error:
        raise explained(error, client, asked) from error
    finally:
        client.close()


def _check_what_is_asked() -> None:
    """
    Raises:
      InputError: nothing, flags of a request beside golden ones, or a load of another kind.
    """
    if not _GOLDEN.value and not _CANDIDATES.value:
        raise InputError("nothing to ask: give --candidates=a,b, or --golden=SERVABLE/1")
    if _LOAD.value and not _GOLDEN.value:
        raise InputError("--load sends golden requests", "give --golden=SERVABLE/1")
    by_hand = [flag.name for flag in _OF_A_REQUEST if flag.value not in (None, [])]
    if _GOLDEN.value and by_hand:
        raise InputError(
            f"--golden asks its own requests, --{by_hand[0]} would be ignored", "give one of both"
        )


def _times(flag: flags.FlagHolder) -> tuple[int, ...] | None:
    """Raises InputError for what is not a number of seconds."""
    try:
        return None if flag.value is None else tuple(map(int, flag.value))
    except ValueError as error:
        given = ",".join(flag.value)
        raise InputError(f"--{flag.name}={given} is not a list of Unix seconds") from error


def _golden(client: Client, version: pathlib.Path, load: int, threads: int) -> int:
    if load:
        report = run_load(client, [g.request for g in golden.read(version)], load, threads)
        print(report)
        return int(not len(report.latency_ms))
    difference = check_golden(client, version)
    print(f"golden requests: {difference}")
    return int(not difference.passes)


if __name__ == "__main__":
    cli.run(main, FLAGS)
