"""Beam's runner in Go, with workers in processes of another environment."""

import os
import signal
import subprocess
from typing import NamedTuple

import pytest

from pipelines import build_dataset
from sitn_tf.errors import InputError
from tests.pipelines import processes
from tests.pipelines.engines import programs
from tests.pipelines.engines.kills import once_sorted
from tests.pipelines.runner_logs import flags
from tests.ports import free_port

pytestmark = pytest.mark.engines


class Prism(NamedTuple):
    """One that runs, and the flags that send a job to it."""

    process: subprocess.Popen
    flags: list[str]


@pytest.fixture
def prism(engine, pool, tmp_path):
    """One of the test's own."""
    port = free_port()
    command = [engine(programs.prism), f"-job_port={port}", "-serve_http=false"]
    with processes.running(command, tmp_path, tmp_path / "prism.log", {}) as process:
        processes.wait_for(port, process)
        endpoint = f"--job_endpoint=localhost:{port}"
        yield Prism(process, ["--runner=PortableRunner", endpoint, *pool.flags()])


@pytest.mark.parametrize("shuffle", ["beam", "files"])
def test_prism_gives_the_same(folder, local, prism, tmp_path, shuffle):
    manifest = build_dataset.run(
        flags(folder, tmp_path / "out", *prism.flags, f"--shuffle={shuffle}")
    )
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.lines == local.lines


def test_an_error_in_a_worker_is_one_line(folder, prism, tmp_path):
    with pytest.raises(InputError, match="lines of the source log were rejected, more than"):
        build_dataset.run(flags(folder, tmp_path / "out", "--user_field=who", *prism.flags))
    assert not list(tmp_path.glob("out*"))


def test_the_command_of_the_readme(folder, local, engine, tmp_path):
    """Beam starts Prism, and its workers in the launcher; only the job has something to say."""
    prism = [f"--prism_location={engine(programs.prism)}", "--runner=PrismRunner"]
    manifest = build_dataset.run(flags(folder, tmp_path / "out", *prism))
    assert manifest.dataset_hash == local.dataset_hash
    assert manifest.options["shuffle"] == "files"  # all on one machine


@pytest.mark.parametrize("what", ["worker", "prism"])
def test_killed_in_the_middle(folder, local, prism, pool, tmp_path, what):
    """Prism runs no bundle twice: its job ends in one line and leaves nothing; so does ours."""
    ended = []

    def kill():
        for process in [prism.process.pid] if what == "prism" else pool.children():
            os.kill(process, signal.SIGKILL)
            ended.append(process)

    once_sorted(tmp_path, kill)
    told = "it can't be reached" if what == "prism" else "failed in state FAILED"
    with pytest.raises(InputError, match=told) as error:
        build_dataset.run(flags(folder, tmp_path / "out", *prism.flags, "--shuffle=beam"))
    assert ended
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("out*"))
    if what == "worker":  # the pool starts another
        again = build_dataset.run(flags(folder, tmp_path / "out", *prism.flags, "--shuffle=beam"))
        assert again.dataset_hash == local.dataset_hash
