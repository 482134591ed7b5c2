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


@pytest.fixture(scope="module")
def cluster(engine):
    """A job manager and two task managers."""
    with flink.cluster(engine(programs.flink)) as started:
        yield started


def test_the_cluster_stands(cluster, engine):
    told = cluster.asked("overview")
    assert (told["taskmanagers"], told["slots-total"]) == (2, 2)
    assert told["flink-version"].startswith(f"{engine(programs.job_server).flink}.")


class Flink(NamedTuple):
    """A cluster with task managers of this test's, and the flags that send a job to it."""

    cluster: flink.Cluster
    workers: list
    flags: list[str]


@pytest.fixture
def beam_on_flink(engine, pool):
    server = engine(programs.job_server)
    with flink.cluster(engine(programs.flink), workers=0) as started:
        workers = [started.start_worker(), started.start_worker()]
        started.wait_for_workers(2)
        told = [*started.job_flags(server.jars), *pool.flags()]
        yield Flink(started, workers, told)


@pytest.mark.parametrize("shuffle", ["beam", "files"])
def test_flink_gives_the_same(folder, local, beam_on_flink, tmp_path, shuffle):
    asked = flags(folder, tmp_path / "out", *beam_on_flink.flags, f"--shuffle={shuffle}")
    manifest = build_dataset.run(asked)
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines


@pytest.mark.parametrize("what", ["task manager", "SDK worker"])
def test_killed_in_the_middle(folder, local, beam_on_flink, pool, tmp_path, what):
    """Flink starts the job again, and what the first attempt wrote is never read."""
    ended = []

    def kill():
        if what == "task manager":
            ended.append(beam_on_flink.workers[0].pid)
            beam_on_flink.workers[0].kill()
            beam_on_flink.cluster.start_worker()
        for worker in pool.children() if what == "SDK worker" else []:
            ended.append(worker)
            os.kill(worker, signal.SIGKILL)

    once_sorted(tmp_path, kill)
    manifest = build_dataset.run(flags(folder, tmp_path / "out", *beam_on_flink.flags))
    assert ended
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines
