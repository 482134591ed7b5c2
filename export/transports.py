"""One try of a call to TF Serving, over gRPC (port 8500) or REST (port 8501)."""

import http.client
import json
import re
import threading
import urllib.parse
from typing import Any

import numpy as np

from export.requests import CTR, Inputs
from export.serving_client import Client, DeadlineExceededError, PredictCall, ServerError
from sitn_tf.errors import InputError

DEFAULT_ADDRESS = {"grpc": "localhost:8500", "rest": "localhost:8501"}


def predict_request(call: PredictCall, model: str) -> Any:
    """A call as TF Serving's PredictRequest."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(output_filter=call.outputs)
    name_model(request.model_spec, model, call.version)
    request.model_spec.signature_name = call.signature
    for name, value in call.inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def name_model(spec: Any, model: str, version: int | None) -> None:
    """Fills a ModelSpec; without a version the newest answers."""
    spec.name = model
    if version is not None:
        spec.version.value = version


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

    def _predict_once(self, call: PredictCall, timeout: float) -> tuple[Inputs, int | None]:
        import tensorflow as tf

        request = predict_request(call, self.model)
        answer = self._call(self._stub.Predict, request, timeout)
        tensors = {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}
        return tensors, answer.model_spec.version.value

    def _newest_once(self, timeout: float) -> None:
        """Every answer names the version that gave it."""

    def input_names(self, signature: str) -> list[str]:
        from tensorflow_serving.apis import get_model_metadata_pb2

        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        name_model(request.model_spec, self.model, self.version)
        answer = self._call(self._stub.GetModelMetadata, request, self.deadline)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(signatures)
        return sorted(signatures.signature_def[signature].inputs)

    def _call(self, method: Any, request: Any, timeout: float) -> Any:
        import grpc

        try:
            return method(request, timeout=timeout)
        except grpc.RpcError as error:
            status, said = error.code().name, error.details()
            if status == "DEADLINE_EXCEEDED":
                raise DeadlineExceededError(self.deadline, said) from error
            missing = status == "NOT_FOUND"
            raise ServerError(status, said, status in self.RETRYABLE, missing) from error

    def close(self) -> None:
        self._channel.close()


class RestClient(Client):
    """Over HTTP (port 8501), one kept-alive connection a thread."""

    RETRYABLE = (429, 502, 503)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def _predict_once(self, call: PredictCall, timeout: float) -> tuple[Inputs, int | None]:
        inputs = {name: value.tolist() for name, value in call.inputs.items()}
        body = json.dumps({"signature_name": call.signature, "inputs": inputs})
        answer = self._call("POST", self._path(call.version) + ":predict", timeout, body)["outputs"]
        # TF Serving leaves the name out where a signature has one output: ctr, if the model was
        # exported with outputs=ctr.
        named = answer if isinstance(answer, dict) else {CTR: answer}
        return {name: np.array(named[name]) for name in call.outputs or named}, None

    def _newest_once(self, timeout: float) -> int:
        status = self._call("GET", self._path(None), timeout)["model_version_status"]
        served = [int(one["version"]) for one in status if one["state"] == "AVAILABLE"]
        if not served:
            raise ServerError("HTTP 503", f"{self.model} has no version yet", retryable=True)
        return max(served)

    def input_names(self, signature: str) -> list[str]:
        answer = self._call("GET", self._path(self.version) + "/metadata", self.deadline)
        return sorted(answer["metadata"]["signature_def"]["signature_def"][signature]["inputs"])

    def _path(self, version: int | None) -> str:
        which = f"/versions/{version}" if version is not None else ""
        return f"/v1/models/{urllib.parse.quote(self.model, safe='')}{which}"

    def _call(
        self, method: str, path: str, timeout: float, body: str | None = None
    ) -> dict[str, Any]:
        connection = self._connection()
        connection.timeout = timeout
        if connection.sock is not None:
            connection.sock.settimeout(timeout)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            content = response.read()
        except TimeoutError as error:
            connection.close()
            raise DeadlineExceededError(self.deadline, "HTTP") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ServerError("UNAVAILABLE", str(error), retryable=True) from error
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"error": content.decode(errors="replace")[:200]}
        status = response.status
        if status != http.client.OK or "error" in answer:
            said, missing = str(answer.get("error", answer)), status == http.client.NOT_FOUND
            raise ServerError(f"HTTP {status}", said, status in self.RETRYABLE, missing)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._local, "connection"):
            self._local.connection = http.client.HTTPConnection(self.address)
            self._connections.append(self._local.connection)
        return self._local.connection

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


_HOST_AND_PORT = re.compile(r"(\[[\w:.%]+\]|[\w.-]+):([0-9]+)", re.ASCII)
_LARGEST_PORT = 2**16 - 1
_GRPC_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):\S+")


def check_address(protocol: str, address: str) -> None:
    """Whether an address is host:port, or of gRPC one of its own kinds, such as unix:PATH.

    A URL, or a name without a port, would be looked up or asked at a port of no model server
    until the deadline.

    Raises:
      InputError: it is neither.
    """
    named = _HOST_AND_PORT.fullmatch(address)
    if named is not None and int(named[2]) <= _LARGEST_PORT:
        return
    if protocol != "grpc" or named is not None or not _GRPC_SCHEME.fullmatch(address):
        raise InputError(
            f"address={address} is not host:port", f"such as {DEFAULT_ADDRESS[protocol]}"
        )


def make_client(protocol: str, address: str | None, **options: Any) -> Client:
    """A client of the protocol, at its usual port if there is no address.

    Raises:
      InputError: the address is not host:port.
    """
    address = address or DEFAULT_ADDRESS[protocol]
    check_address(protocol, address)
    kind = {"grpc": GrpcClient, "rest": RestClient}[protocol]
    return kind(address, **options)
