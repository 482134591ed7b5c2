"""What the clients refuse before they ask: addresses, deadlines, versions and flags of no use."""

import contextlib
import re

import pytest

from export import client as clients
from export import transports
from sitn_tf.errors import InputError
from tests.commands import run_main


@pytest.fixture(params=["grpc", "rest"])
def protocol(request):
    return request.param


@pytest.mark.parametrize(
    "address",
    [
        "localhost:abc",
        "localhost",
        "http://localhost:8501",
        "a b:1",
        ":8501",
        "h:70000",
        "::1:8501",
    ],
)
def test_an_address_that_is_no_host_and_port_is_refused(address, protocol):
    usual = {"grpc": "8500", "rest": "8501"}[protocol]
    told = f"address={address} is not host:port: such as localhost:{usual}"
    with pytest.raises(InputError, match=f"^{re.escape(told)}$"):
        clients.make_client(protocol, address)


@pytest.mark.parametrize("address", ["unix:/run/tf.sock", "dns:///tf.internal:8500"])
def test_grpc_has_addresses_of_its_own(address):
    transports.check_address("grpc", address)
    with pytest.raises(InputError, match="is not host:port"):
        transports.check_address("rest", address)


@pytest.mark.parametrize("address", ["localhost:1", "[::1]:8501", "10.0.0.1:8501", "tf_1.a-b:80"])
def test_a_host_and_a_port_are_an_address(address, protocol):
    transports.check_address(protocol, address)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"deadline": float("nan")}, r"deadline=nan is not a number of seconds in \(0, 86400\]"),
        ({"deadline": float("inf")}, "deadline=inf is not a number of seconds"),
        ({"deadline": 0.0}, "deadline=0.0 is not a number of seconds"),
        (
            {"version": 2**63},
            "version=9223372036854775808 is not an integer from 1 to 9223372036854",
        ),
        ({"version": 0}, "version=0 is not an integer from 1"),
    ],
)
def test_what_no_server_can_be_asked_with_is_refused(protocol, option, message):
    with pytest.raises(InputError, match=f"^{message}"):
        clients.make_client(protocol, "localhost:1", **option)


def test_a_models_name_is_quoted_in_its_path():
    with contextlib.closing(transports.RestClient("localhost:1", model="é/ü b")) as ask:
        assert ask._path(3) == "/v1/models/%C3%A9%2F%C3%BC%20b/versions/3"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--load=3", "--candidates=t2"], "--load sends golden requests: give --golden=SERV"),
        (
            ["--golden=1", "--candidates=t2"],
            "--golden asks its own requests, --candidates would be ignored: give one of both$",
        ),
        (["--golden=1", "--user_id=u"], "--user_id would be ignored"),
        (["--golden=1", "--request_time=0"], "--request_time would be ignored"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(flags, message):
    with pytest.raises(InputError, match=message):
        run_main(clients, *flags)
