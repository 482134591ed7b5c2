"""Logs, the local runner's records of them, and workers with what a job sends of the project."""

import os
import pathlib

import pytest

from pipelines import build_dataset
from tests.pipelines import processes, runner_logs
from tests.pipelines.engines import programs, shared_worker_pool


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return runner_logs.write(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="session")
def local(folder):
    """The manifest of the local runner."""
    return build_dataset.run(runner_logs.flags(folder, folder / "local"))


@pytest.fixture(scope="session")
def engine():
    """Finds a program in the folder of `make test-engines`; skips with the reason."""
    if programs.FOLDER not in os.environ:
        pytest.skip("`make test-engines` brings the engines")

    def found(program):
        try:
            return program(pathlib.Path(os.environ[programs.FOLDER]))
        except programs.MissingProgramError as error:
            pytest.skip(str(error))

    return found


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    """A worker pool whose environment has the project as --setup_file packs it."""
    path = tmp_path_factory.mktemp("workers")
    processes.project_environment(path / "environment")
    program = [shared_worker_pool.__file__]
    with processes.worker_pool(path / "environment", path, program) as started:
        yield started
