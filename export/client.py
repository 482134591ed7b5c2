"""Asks a TF Serving server for scores, over gRPC or REST: one request, a check, or a load.

    python -m export.client --source_history=a,b --target_history=c --candidates=d,e
    python -m export.client --golden=SERVABLE/1                replays it, compares scores
    python -m export.client --golden=SERVABLE/1 --load=1000 --threads=8

--protocol=rest --address=localhost:8501 instead of gRPC at localhost:8500. A call has one
deadline, and is tried again within it while the server is unavailable or overloaded.
"""

import abc
import concurrent.futures
import dataclasses
import http.client
import json
import pathlib
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from absl import flags

from export import golden, requests
from export.requests import Inputs, Request
from sitn_tf import cli, quiet
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
_PROTOCOL = flags.DEFINE_enum("protocol", "grpc", ["grpc", "rest"], "How.", flag_values=FLAGS)
_ADDRESS = flags.DEFINE_string("address", None, "host:port of the server.", flag_values=FLAGS)
_MODEL = flags.DEFINE_string("model", "sitn", "Name of the model.", flag_values=FLAGS)
_VERSION = flags.DEFINE_integer("version", None, "None: the served one.", 1, flag_values=FLAGS)
_DEADLINE = flags.DEFINE_float("deadline", 1.0, "Seconds of a call.", 1e-3, flag_values=FLAGS)
_SOURCE = flags.DEFINE_list("source_history", [], "Raw ids, oldest first.", flag_values=FLAGS)
_TARGET = flags.DEFINE_list("target_history", [], "Raw ids, oldest first.", flag_values=FLAGS)
_CANDIDATES = flags.DEFINE_list("candidates", [], "Raw ids to score.", flag_values=FLAGS)
_TIME = flags.DEFINE_integer(
    "request_time", None, "Unix seconds, for a model of hour or weekday.", flag_values=FLAGS
)
_USER = flags.DEFINE_string("user_id", None, "For a model of users.", flag_values=FLAGS)
_GOLDEN = flags.DEFINE_string("golden", None, "Version with golden requests.", flag_values=FLAGS)
_LOAD = flags.DEFINE_integer("load", 0, "Golden requests to send in all.", 0, flag_values=FLAGS)
_THREADS = flags.DEFINE_integer("threads", 4, "In flight, in load mode.", 1, flag_values=FLAGS)

DEFAULT_ADDRESS = {"grpc": "localhost:8500", "rest": "localhost:8501"}
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5
T = TypeVar("T")


class ServerError(Exception):
    """The server refused or failed; `retryable` says whether asking again may help."""

    def __init__(self, status: str, message: str, retryable: bool = False) -> None:
        self.status, self.retryable = status, retryable
        super().__init__(f"{status}: {message}")


class DeadlineExceededError(ServerError):
    """No answer in time, over all tries."""

    def __init__(self, deadline: float, last: str) -> None:
        super().__init__("DEADLINE_EXCEEDED", f"no answer in {deadline} s ({last})")


def with_retries(
    attempt: Callable[[float], T],
    deadline: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Calls `attempt(seconds left)` until it answers, with growing, random pauses.

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
    raise DeadlineExceededError(deadline, last)


class Client(abc.ABC):
    """Signatures of a served model by name; safe to share between threads.

    Args:
      address: host:port.
      model: its name in models.config.
      version: None for the one that is served.
      deadline: seconds of a call, retries included.
    """

    def __init__(
        self,
        address: str,
        model: str = "sitn",
        version: int | None = None,
        deadline: float = 1.0,
    ) -> None:
        self.address, self.model, self.version = address, model, version
        self.deadline = deadline

    @abc.abstractmethod
    def _predict_once(self, signature: str, inputs: Inputs, timeout: float) -> Inputs:
        """One try."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the connection."""

    def predict(self, signature: str, inputs: Inputs) -> Inputs:
        """Outputs by name.

        Raises:
          ServerError: refused, failed, or not answered in time.
        """
        return with_retries(lambda left: self._predict_once(signature, inputs, left), self.deadline)

    def score(self, asked: Sequence[Request]) -> list[np.ndarray]:
        """Probability of each candidate of each request."""
        found = self.predict("score", requests.score_inputs(asked))
        return requests.own_scores(found["ctr"], asked)

    def encode_user(self, asked: Sequence[Request]) -> Inputs:
        """What `score_encoded` needs of the users of the requests."""
        return self.predict("encode_user", requests.user_inputs(asked))

    def score_encoded(self, users: Inputs, candidates: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """Probability of each candidate, for users encoded earlier."""
        found = self.predict("score_encoded", {**users, **requests.candidate_inputs(candidates)})
        return [row[: len(shown)] for row, shown in zip(found["ctr"], candidates, strict=True)]


class GrpcClient(Client):
    """Over gRPC (port 8500)."""

    RETRYABLE = ("UNAVAILABLE", "RESOURCE_EXHAUSTED")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        super().__init__(*args, **kwargs)
        # Encoded users of a large batch are over gRPC's default of 4 MB.
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(self.address, options)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)

    def _predict_once(self, signature: str, inputs: Inputs, timeout: float) -> Inputs:
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest()
        request.model_spec.name = self.model
        request.model_spec.signature_name = signature
        if self.version is not None:
            request.model_spec.version.value = self.version
        for name, value in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
        try:
            answer = self._stub.Predict(request, timeout=timeout)
        except grpc.RpcError as error:
            status = error.code().name
            if status == "DEADLINE_EXCEEDED":
                raise DeadlineExceededError(self.deadline, error.details()) from error
            raise ServerError(status, error.details(), status in self.RETRYABLE) from error
        return {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}

    def close(self) -> None:
        self._channel.close()


class RestClient(Client):
    """Over HTTP (port 8501), one kept-alive connection a thread."""

    RETRYABLE = (429, 502, 503)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def _predict_once(self, signature: str, inputs: Inputs, timeout: float) -> Inputs:
        which = f"/versions/{self.version}" if self.version is not None else ""
        path = f"/v1/models/{self.model}{which}:predict"
        body = json.dumps(
            {"signature_name": signature, "inputs": {n: v.tolist() for n, v in inputs.items()}}
        )
        status, answer = self._post(path, body, timeout)
        if status != http.client.OK:
            message = str(answer.get("error", answer))
            raise ServerError(f"HTTP {status}", message, status in self.RETRYABLE)
        outputs = answer["outputs"]
        # A signature of one output has it without its name; none of the model's has one.
        return {name: np.array(value) for name, value in outputs.items()}

    def _post(self, path: str, body: str, timeout: float) -> tuple[int, dict[str, Any]]:
        connection = self._connection()
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            connection.close()
            raise DeadlineExceededError(self.deadline, "HTTP") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServerError("UNAVAILABLE", str(error), retryable=True) from error
        try:
            return response.status, json.loads(content)
        except ValueError:
            return response.status, {"error": content.decode(errors="replace")[:200]}

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self.address)
            self._connections.append(self._local.connection)
        return self._local.connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What a load found; latencies are the client's, retries included.

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
    errors: dict[str, int] = {}
    for _, status in done:
        if status is not None:
            errors[status] = errors.get(status, 0) + 1
    answered = np.array([latency for latency, status in done if status is None])
    return LoadReport(seconds, answered, errors)


def check_golden(client: Client, version: pathlib.Path) -> golden.Difference:
    """Largest differences of served scores from those at export."""
    from export.verify import read_goldens

    goldens = read_goldens(version)
    found = golden.served(
        lambda batch: client.predict("score", requests.score_inputs(batch)),
        [g.request for g in goldens],
    )
    return golden.compare(found, [g.exported for g in goldens])


def make_client(protocol: str, address: str | None, **options: Any) -> Client:
    """A client of the protocol, at its usual port if there is no address."""
    kind = {"grpc": GrpcClient, "rest": RestClient}[protocol]
    return kind(address or DEFAULT_ADDRESS[protocol], **options)


def main(_: list[str]) -> int:
    """Does what the flags ask; the status is 1 where golden scores differ."""
    if not _GOLDEN.value and not _CANDIDATES.value:
        raise InputError("nothing to ask: give --candidates=a,b, or --golden=SERVABLE/1")
    if _PROTOCOL.value == "grpc":
        quiet.import_tensorflow()  # for its protos
    client = make_client(
        _PROTOCOL.value,
        _ADDRESS.value,
        model=_MODEL.value,
        version=_VERSION.value,
        deadline=_DEADLINE.value,
    )
    try:
        return _run(client)
    except ServerError as error:
        raise InputError(
            f"{client.address} did not answer ({error}): is TF Serving running there, with the "
            f"model {client.model!r}?"
        ) from error
    finally:
        client.close()


def _run(client: Client) -> int:
    if not _GOLDEN.value:
        asked = Request(
            tuple(_SOURCE.value),
            tuple(_TARGET.value),
            tuple(_CANDIDATES.value),
            _TIME.value,
            _USER.value,
        )
        for ctr, item in sorted(
            zip(client.score([asked])[0].tolist(), asked.candidates, strict=True), reverse=True
        ):
            print(f"{ctr:.6f}  {item}")
        return 0
    version = pathlib.Path(_GOLDEN.value)
    if _LOAD.value:
        from export.verify import read_goldens

        asked_all = [g.request for g in read_goldens(version)]
        print(run_load(client, asked_all, _LOAD.value, _THREADS.value))
        return 0
    difference = check_golden(client, version)
    print(
        f"golden requests: max abs difference {difference.ctr:.2e} of ctr, "
        f"{difference.logit:.2e} of log-odds  {'ok' if difference.passes else 'FAILED'}"
    )
    return int(not difference.passes)


if __name__ == "__main__":
    cli.run(main, FLAGS)
