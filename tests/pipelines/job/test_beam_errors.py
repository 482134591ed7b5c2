"""Errors of engines become a line; the local runner's stay what they are."""

import grpc
import pytest

from pipelines.job import beam_errors
from sitn_tf import beam_workers
from sitn_tf.errors import InputError


def unavailable():
    """What a call says where nothing listens."""
    with grpc.insecure_channel("localhost:1") as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/nobody/there")(b"")
    return caught.value


FAILED = RuntimeError("Pipeline job-001 failed in state FAILED: panic:\n goroutine " + "x " * 500)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (FAILED, r"FlinkRunner: Pipeline job-001 failed in state FAILED: panic: goroutine x "),
        (unavailable, r"FlinkRunner: it can't be reached \(UNAVAILABLE: .*refused"),
        (grpc.FutureTimeoutError(), "FlinkRunner: nothing answers at job_endpoint"),
    ],
)
def test_an_engine_that_fails(raised, told):
    raised = raised() if callable(raised) else raised
    with (
        pytest.raises(InputError, match=f"^runner={told}") as caught,
        beam_errors.of_runner("FlinkRunner"),
    ):
        raise raised
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
    with pytest.raises(type(raised)), beam_errors.of_runner("FnApiRunner"):
        raise raised


def test_an_error_of_ones_own_goes_through():
    for error in (RuntimeError("a bug"), KeyError("shard"), InputError("mend it")):
        with pytest.raises(type(error)) as caught, beam_errors.of_runner("FlinkRunner"):
            raise error
        assert caught.value is error


def test_what_a_worker_found_comes_before_that_the_job_failed():
    """As the job runs them: the runner's outside."""
    text = "Pipeline j failed in state FAILED: ... InputError: check the log [while running 'x']"
    with (
        pytest.raises(InputError, match=r"^check the log$"),
        beam_errors.of_runner("FlinkRunner"),
        beam_workers.errors_in_one_line(),
    ):
        raise RuntimeError(text)
