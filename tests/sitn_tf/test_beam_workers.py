"""What Beam logs of errors that the user is told in one line."""

import logging

import pytest

from sitn_tf import beam_workers
from sitn_tf.errors import InputError

BEAM = logging.getLogger("apache_beam.runners.common")


def fail(error):
    """As a worker does: Beam logs the traceback and raises the error again."""
    try:
        raise error
    except Exception:
        BEAM.exception("failed")
        raise


@pytest.mark.parametrize(
    ("error", "logged"),
    [(InputError("mend it"), 0), (OSError(30, "Read-only", "out"), 0), (KeyError("a bug"), 1)],
)
def test_only_bugs_have_a_traceback(error, logged, caplog):
    with pytest.raises(type(error)), beam_workers.errors_in_one_line():
        fail(error)
    assert len(caplog.records) == logged
    with pytest.raises(type(error)):
        fail(error)
    assert len(caplog.records) == logged + 1


def test_an_error_that_beam_has_wrapped_is_unwrapped():
    wrapped = RuntimeError("InputError: check the log [while running 'Parse']")
    with pytest.raises(InputError, match=r"^check the log$"), beam_workers.errors_in_one_line():
        raise wrapped
