"""One small run, exported once, and one process that serves it, for all tests here."""

import pathlib

import pytest

from export import native
from export.exporting import export
from export.options import ExportOptions
from tests.eagerly import op_by_op
from tests.export.small_run import write_small_run


@pytest.fixture(scope="package", autouse=True)
def _op_by_op():
    """What is exported is traced; what it is held against is the trained model, op by op."""
    with op_by_op():
        yield


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory) -> pathlib.Path:
    return write_small_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="session")
def servable(run_dir, tmp_path_factory) -> pathlib.Path:
    """A directory with version 1. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("servable")
    export(run_dir, folder)
    return folder


@pytest.fixture(scope="session")
def other_run_dir(tmp_path_factory) -> pathlib.Path:
    """The same model over the same items, with other weights."""
    return write_small_run(tmp_path_factory.mktemp("other_run"), seed=11)


@pytest.fixture(scope="session")
def other_servable(other_run_dir, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("other_servable")
    export(other_run_dir, folder, ExportOptions(goldens=64))
    return folder


@pytest.fixture(scope="session")
def session(servable):
    with native.Session(servable / "1") as opened:
        yield opened
