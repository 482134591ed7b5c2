"""Beam's Flink runner: a cluster on this machine, workers in processes of another environment."""

import os
import signal
from typing import NamedTuple

import pytest

from pipelines import build_dataset
from tests.pipelines.engines import flink, programs
from tests.pipelines.engines.kills import once_sorted
from tests.pipelines.runner_logs import flags

pytestmark = pytest.mark.engines


class Flink(NamedTuple):
    """A cluster of two task managers, and the flags that send a job to it.

    Attributes:
      flags: through a job server that runs.
      runner_flags: through one that Beam's FlinkRunner starts.
    """

    cluster: flink.Cluster
    flags: list[str]
    runner_flags: list[str]


@pytest.fixture(scope="module")
def started(engine, pool):
    jars, workers = engine(programs.job_server).jars, pool.flags()
    with flink.cluster(engine(programs.flink)) as made:
        yield Flink(made, [*made.job_flags(jars), *workers], [*made.runner_flags(jars), *workers])


@pytest.fixture
def beam_on_flink(started):
    """One cluster for all tests, whole again where a test killed part of it."""
    started.cluster.wait_for_workers(flink.TASK_MANAGERS)
    return started


def test_the_cluster_stands(beam_on_flink, engine):
    told = beam_on_flink.cluster.asked("overview")
    assert (told["taskmanagers"], told["slots-total"]) == (2, 2)
    assert told["flink-version"].startswith(f"{engine(programs.job_server).flink}.")


@pytest.mark.parametrize("shuffle", ["beam", "files"])
def test_flink_gives_the_same(folder, local, beam_on_flink, tmp_path, shuffle):
    asked = flags(folder, tmp_path / "out", *beam_on_flink.flags, f"--shuffle={shuffle}")
    manifest = build_dataset.run(asked)
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines


def test_the_flink_runner_starts_its_own_job_server(folder, local, beam_on_flink, tmp_path):
    manifest = build_dataset.run(flags(folder, tmp_path / "out", *beam_on_flink.runner_flags))
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines


@pytest.mark.parametrize("what", ["task manager", "SDK worker"])
def test_killed_in_the_middle(folder, local, beam_on_flink, pool, tmp_path, what):
    """Flink starts the job again, and what the first attempt wrote is never read."""
    ended = []

    def kill():
        if what == "task manager":
            ended.append(beam_on_flink.cluster.replace_worker())
        for worker in pool.children() if what == "SDK worker" else []:
            ended.append(worker)
            os.kill(worker, signal.SIGKILL)

    once_sorted(tmp_path, kill)
    manifest = build_dataset.run(flags(folder, tmp_path / "out", *beam_on_flink.flags))
    assert ended
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines
