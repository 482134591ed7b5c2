"""A Flink cluster on this machine: a job manager, task managers, Beam's job server."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator

from tests.pipelines import processes
from tests.ports import free_port

_OPENED = (
    "java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect",
    "java.text", "java.time", "java.util", "java.util.concurrent",
    "java.util.concurrent.atomic", "java.util.concurrent.locks",
)  # fmt: skip
"""Packages of java.base that Flink's own scripts open to it."""
_JAVA = ["java", *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED)]
TASK_MANAGERS = 2
_ENTRY = "org.apache.flink.runtime"
_JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
_LOG = """rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = CONSOLE
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
"""
_MB_OF_TASK_MANAGER = {
    "task.heap.size": 192, "framework.heap.size": 128, "managed.size": 192,
    "network.min": 256, "network.max": 256, "task.off-heap.size": 64,
    "framework.off-heap.size": 128, "jvm-metaspace.size": 192,
    "jvm-overhead.min": 128, "jvm-overhead.max": 128,
}  # fmt: skip


class Cluster:
    """A job manager that runs; `start_worker` gives it a task manager of one slot."""

    def __init__(self, jars: list[pathlib.Path], stack: contextlib.ExitStack) -> None:
        self._stack, self._jars = stack, jars
        self.processes: list[subprocess.Popen] = []
        self._workers: list[subprocess.Popen] = []
        self.folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.port = free_port()
        settings = {
            "jobmanager.rpc.address": "localhost",
            "jobmanager.rpc.port": free_port(),
            "jobmanager.bind-host": "localhost",
            "rest.address": "localhost",
            "rest.bind-address": "localhost",
            "rest.port": self.port,
            "taskmanager.host": "localhost",
            "taskmanager.bind-host": "localhost",
            "taskmanager.numberOfTaskSlots": 1,
            "taskmanager.cpu.cores": 1.0,
            # 16 MiB of each step's output by default, of all steps that run at once
            "taskmanager.network.sort-shuffle.min-buffers": 64,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 5,
            "restart-strategy.fixed-delay.delay": "1 s",
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 60_000,  # one that is gone misses two heartbeats
            "io.tmp.dirs": str(self.folder),
            **{f"taskmanager.memory.{k}": f"{mb}mb" for k, mb in _MB_OF_TASK_MANAGER.items()},
        }
        text = "".join(f"{name}: {value}\n" for name, value in settings.items())
        (self.folder / "config.yaml").write_text(text)
        (self.folder / "log4j.properties").write_text(_LOG)
        main = f"{_ENTRY}.entrypoint.StandaloneSessionClusterEntrypoint"
        manager = self._start(main, "512m", "--executionMode", "cluster")
        processes.wait_for(self.port, manager)

    def _start(self, main: str, heap: str, *more: str) -> subprocess.Popen:
        command = [
            *_JAVA, f"-Xmx{heap}",
            f"-Dlog4j.configurationFile=file:{self.folder}/log4j.properties",
            "-cp", ":".join(map(str, self._jars)), main, "--configDir", str(self.folder), *more,
        ]  # fmt: skip
        return self._run(command, "cluster.log")

    def _run(self, command: list[str], log: str) -> subprocess.Popen:
        running = processes.running(command, self.folder, self.folder / log, {})
        self.processes.append(self._stack.enter_context(running))
        return self.processes[-1]

    def start_worker(self) -> None:
        """Another task manager."""
        self._workers.append(self._start(f"{_ENTRY}.taskexecutor.TaskManagerRunner", "384m"))

    def replace_worker(self) -> int:
        """Kills the oldest task manager and starts another; the id of the one killed."""
        killed = self._workers.pop(0)
        killed.kill()
        self.start_worker()
        return killed.pid

    def asked(self, what: str) -> dict:
        """What the job manager answers over REST."""
        with urllib.request.urlopen(f"http://localhost:{self.port}/{what}", timeout=10) as answer:
            return json.load(answer)

    def wait_for_workers(self, count: int) -> None:
        """Until so many task managers have offered their slots."""
        for _ in range(240):
            with contextlib.suppress(urllib.error.HTTPError):  # 503 until a job manager leads
                if self.asked("overview")["slots-total"] == count:
                    return
            time.sleep(0.5)
        raise AssertionError((self.folder / "cluster.log").read_text()[-3000:])

    def job_flags(self, jars: list[pathlib.Path]) -> list[str]:
        """Starts Beam's job server for this cluster; the flags that send a job to it.

        It sends its class path to the cluster with every job.
        """
        port = free_port()
        command = [
            *_JAVA, "-Xmx512m", "-cp", ":".join(map(str, jars)), _JOB_SERVER,
            f"--flink-master=localhost:{self.port}", f"--artifacts-dir={self.folder}/artifacts",
            f"--job-port={port}", "--artifact-port=0", "--expansion-port=-1",
        ]  # fmt: skip
        processes.wait_for(port, self._run(command, "job_server.log"))
        return ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--parallelism=2"]

    def runner_flags(self, jars: list[pathlib.Path]) -> list[str]:
        """Flags of Beam's own FlinkRunner, which starts the job server from one jar."""
        jar = self.folder / "job_server.jar"
        _write_jar(jar, _JOB_SERVER, jars)
        return [
            "--runner=FlinkRunner", f"--flink_master=localhost:{self.port}",
            f"--flink_job_server_jar={jar}", "--parallelism=2",
        ]  # fmt: skip


def _write_jar(path: pathlib.Path, main: str, jars: list[pathlib.Path]) -> None:
    """An executable jar of nothing but its manifest, with other jars as its class path."""
    manifest = [
        "Manifest-Version: 1.0",
        f"Main-Class: {main}",
        f"Add-Opens: {' '.join(f'java.base/{package}' for package in _OPENED)}",
        f"Class-Path: {' '.join(jar.as_uri() for jar in jars)}",
    ]
    # A line has 72 bytes at most; one that begins with a space goes on with the one before.
    folded = [
        "\n ".join(line[begin : begin + 70] for begin in range(0, len(line), 70))
        for line in manifest
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "\n".join(folded) + "\n")


@contextlib.contextmanager
def cluster(jars: list[pathlib.Path]) -> Iterator[Cluster]:
    """A cluster of two task managers, ended afterwards."""
    with contextlib.ExitStack() as stack:
        made = Cluster(jars, stack)
        for _ in range(TASK_MANAGERS):
            made.start_worker()
        made.wait_for_workers(TASK_MANAGERS)
        yield made
