"""A stand-in for TF Serving in tests: its protos and paths, the C++ runtime behind them.

It serves several versions by number, the newest unless a call names one, and can batch as TF
Serving does (tests/export/batcher.py), its death included. It is not a server to use.
"""

import contextlib
import json
import pathlib
import queue
import re
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from export import native, version_files
from tests.export import batcher

PATH = re.compile(r"/v1/models/sitn(?:/versions/(\d+))?(:predict|/metadata)?$")


class Double(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict; `failures` of the next calls are turned away, `delay` slows each.

    Args:
      version: what is served at first, by the number that it is named.
      batching: whether calls that wait together are merged, and can end the server.
    """

    def __init__(self, version: pathlib.Path, batching: bool = False) -> None:
        self.failures = 0
        self.delay = 0.0
        self.calls = 0
        self.batches: list[int] = []
        self.dead = False
        self.versions: dict[int, native.Session] = {}
        self._lock = threading.Lock()
        self._waiting: queue.Queue | None = queue.Queue() if batching else None
        self.load(version)
        if batching:
            threading.Thread(target=self._batch, daemon=True).start()

    def load(self, version: pathlib.Path, number: int | None = None, keep: int = 2) -> None:
        """Takes up a version as models.config's policy does: the newest `keep` stay."""
        opened = native.Session(version)
        with self._lock:
            self.versions[number or int(version.name)] = opened
            gone = [self.versions.pop(old) for old in sorted(self.versions)[:-keep]]
        for session in gone:
            session.close()

    def follow(self, servable: pathlib.Path, keep: int = 2) -> None:
        """Serves the newest `keep` of a directory, as models.config's policy does, and no other."""
        wanted = version_files.present(servable)[-keep:]
        opened = {n: native.Session(servable / str(n)) for n in wanted if n not in self.versions}
        with self._lock:
            self.versions |= opened
            gone = [self.versions.pop(old) for old in set(self.versions) - set(wanted)]
        for session in gone:
            session.close()

    def close(self) -> None:
        for session in self.versions.values():
            session.close()

    @property
    def session(self) -> native.Session:
        return self.versions[max(self.versions)]

    def answer(
        self, signature: str, inputs: dict[str, np.ndarray], number: int | None, wait: float = 5.0
    ) -> tuple[int, dict[str, np.ndarray]]:
        """The version that answered, and its outputs.

        Raises NativeError as the model does, KeyError for a version that is not served,
        ConnectionError for a planned failure or a dead server.
        """
        time.sleep(self.delay)
        with self._lock:
            self.calls += 1
            if self.failures:
                self.failures -= 1
                raise ConnectionError("planned")
        if self._waiting is None:
            return self._run(signature, inputs, number)
        future: futures.Future = futures.Future()
        self._waiting.put((signature, inputs, number, future))
        return future.result(timeout=wait)

    def _run(self, signature, inputs, number):
        with self._lock:
            number = max(self.versions) if number is None else number
            return number, self.versions[number].run(signature, inputs)

    def _batch(self) -> None:
        """Merges what came within a moment. What waits for a call of no rows waits for ever."""
        waiting: list = []
        while not self.dead:
            waiting.append(self._waiting.get())
            time.sleep(0.05)
            while not self._waiting.empty():
                waiting.append(self._waiting.get())
            while waiting:
                same = [w for w in waiting if (w[0], w[2], set(w[1])) ==
                        (waiting[0][0], waiting[0][2], set(waiting[0][1]))]  # fmt: skip
                try:
                    merged = batcher.merge([w[1] for w in same])
                    number, outputs = self._run(same[0][0], merged, same[0][2])
                    answers = batcher.split(outputs, [w[1] for w in same])
                except batcher.NeverScheduledError:
                    break
                except batcher.ServerDiedError:
                    self.dead = True
                    for one in waiting:
                        one[3].set_exception(ConnectionError("Socket closed"))
                    return
                except (native.NativeError, KeyError, ValueError) as error:
                    for one in same:
                        one[3].set_exception(error)
                else:
                    self.batches.append(len(same))
                    for one, own in zip(same, answers, strict=True):
                        one[3].set_result((number, own))
                waiting = [w for w in waiting if all(w is not s for s in same)]

    # ---- gRPC ----

    def Predict(self, request, context):  # noqa: N802 (gRPC's name)
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        if self.dead:
            context.abort(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses")
        try:
            number, found = self.answer(
                spec.signature_name, inputs, number, context.time_remaining()
            )
        except (native.InvalidArgumentError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except ConnectionError as error:
            context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except KeyError:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found: sitn {number}")
        except TimeoutError:
            context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "never scheduled")
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name = spec.name
        answer.model_spec.version.value = number
        for name, value in found.items():
            if not request.output_filter or name in request.output_filter:
                answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return answer

    def GetModelMetadata(self, request, context):  # noqa: N802
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.session.signatures.items():
            for side in ("inputs", "outputs"):
                for tensor, info in getattr(signature, side).items():
                    made = getattr(signatures.signature_def[name], side)[tensor]
                    made.name, made.dtype = info.tensor, info.dtype
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.metadata["signature_def"].Pack(signatures)
        return answer


def _handler(double: Double) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _, what = PATH.match(self.path).groups()
            if what == "/metadata":
                session = double.session
                told = {
                    name: {
                        "inputs": {
                            n: {"dtype": types_pb2.DataType.Name(i.dtype)}
                            for n, i in signature.inputs.items()
                        }
                    }
                    for name, signature in session.signatures.items()
                }
                return self._send(200, {"metadata": {"signature_def": {"signature_def": told}}})
            served = [
                {"version": str(n), "state": "AVAILABLE", "status": {"error_code": "OK"}}
                for n in double.versions
            ]
            gone = {"version": "0", "state": "END", "status": {"error_code": "OK"}}
            return self._send(200, {"model_version_status": [*served, gone]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            which, _ = PATH.match(self.path).groups()
            signature = double.session.signatures[body["signature_name"]]
            try:
                inputs = {
                    name: np.array(
                        value, dtype=native.DTYPES.get(signature.inputs[name].dtype, object)
                    )
                    for name, value in body["inputs"].items()
                }
                _, found = double.answer(
                    body["signature_name"], inputs, int(which) if which else None
                )
            except native.InvalidArgumentError as error:
                return self._send(400, {"error": str(error)})
            except ConnectionError as error:
                return self._send(503, {"error": str(error)})
            except KeyError:
                return self._send(404, {"error": f"Servable not found: sitn {which}"})
            values = {n: v.tolist() for n, v in found.items()}
            only = next(iter(values.values()))
            return self._send(200, {"outputs": values if len(values) > 1 else only})

        def _send(self, status: int, content: dict) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler


@contextlib.contextmanager
def serve(version: pathlib.Path, batching: bool = False) -> Iterator[tuple[Double, dict[str, str]]]:
    """The double and its address by protocol."""
    double = Double(version, batching)
    server = grpc.server(futures.ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(double, server)
    grpc_port = server.add_insecure_port("localhost:0")
    server.start()
    rest = ThreadingHTTPServer(("localhost", 0), _handler(double))
    thread = threading.Thread(target=rest.serve_forever, daemon=True)
    thread.start()
    try:
        yield (
            double,
            {"grpc": f"localhost:{grpc_port}", "rest": f"localhost:{rest.server_port}"},
        )
    finally:
        server.stop(None)
        rest.shutdown()
        rest.server_close()
        double.close()
