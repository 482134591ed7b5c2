"""What `make test-engines` needs beside this project, into one folder.

    python -m tests.pipelines.engines.programs FOLDER

Prism is built by Go. Beam's job server for Flink comes from Maven as the jars of a class path
(`job_server.xml`), the Flink that it is made for from its Python package. A Python environment in
the folder has apache-beam[gcp] above all that this one has. What can't be had is told and left out:
the tests that want it are skipped for the same reason.
"""

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from typing import NamedTuple

from tests.pipelines import processes

FOLDER = "SITN_ENGINES"
"""Environment variable: the folder, absolute."""
JOB_SERVER = "FLINK_JOB_SERVER"
"""Environment variable: a jar, or a folder of jars, to take instead of Maven's."""
BEAM = importlib.metadata.version("apache-beam")
_CLASS_PATH = pathlib.Path(__file__).with_name("job_server.xml")


class _Versions(NamedTuple):
    """What `job_server.xml` is resolved with."""

    beam: str
    job_service: str
    flink: str


_JOB_SERVERS = (_Versions(BEAM, BEAM, "1.20"), _Versions("2.70.0", "2.65.0", "1.19"))
"""This environment's version of Beam, then what mirrors have that serve part of Maven Central."""


class JobServer(NamedTuple):
    """Beam's job server for Flink.

    Attributes:
      jars: its class path.
      beam: the version of Beam's Flink runner.
      flink: the minor version of Flink that it is made for, such as 1.20.
    """

    jars: list[pathlib.Path]
    beam: str
    flink: str


class MissingProgramError(Exception):
    """A program that this machine has not got, and why."""


def prism(folder: pathlib.Path) -> pathlib.Path:
    """Beam's runner in Go, of this environment's version of Beam."""
    program = folder / "bin" / "prism"
    if not program.exists():
        module = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{BEAM}"
        _run("go", "install", module, around={"GOBIN": str(program.parent)})
    return program


def job_server(folder: pathlib.Path) -> JobServer:
    """Beam's job server for Flink: what FLINK_JOB_SERVER names, or the first that Maven has."""
    _of_java("java")
    if given := os.environ.get(JOB_SERVER):
        return _job_server_of(pathlib.Path(given))
    home = folder / "job_server"
    if not home.exists():
        _resolve_job_server(home)
    return _job_server_of(home)


def _resolve_job_server(home: pathlib.Path) -> None:
    copied = home.with_suffix(".tmp")
    goal = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
    refused = []
    for versions in _JOB_SERVERS:
        shutil.rmtree(copied, ignore_errors=True)
        wanted = [f"-D{name}={version}" for name, version in versions._asdict().items()]
        try:
            _run("mvn", "--batch-mode", "--quiet", f"--file={_CLASS_PATH}", goal,
                 f"-DoutputDirectory={copied}", "-DincludeScope=runtime", *wanted)  # fmt: skip
        except MissingProgramError as error:
            refused.append(str(error))
        else:
            copied.rename(home)
            return
    raise MissingProgramError("; ".join(refused))


def _job_server_of(path: pathlib.Path) -> JobServer:
    """Tells Flink's version by the runner's jar; raises MissingProgramError where there is none."""
    jars = sorted(path.glob("*.jar")) if path.is_dir() else [path]
    for jar in jars:
        if found := re.fullmatch(
            r"beam-runners-flink-([\d.]+)(?:-job-server)?-(\d.*)\.jar", jar.name
        ):
            return JobServer(jars, flink=found[1], beam=found[2])
    raise MissingProgramError(
        f"{path}: no jar of Beam's Flink runner, beam-runners-flink-FLINK-BEAM.jar or "
        "beam-runners-flink-FLINK-job-server-BEAM.jar"
    )


def flink(folder: pathlib.Path) -> list[pathlib.Path]:
    """The jars of a cluster of the Flink that the job server is made for."""
    version = job_server(folder).flink
    home = folder / f"flink-{version}"
    if not home.exists():
        _pip("download", "--no-deps", f"--dest={folder}", f"apache-flink-libraries=={version}.*")
        [packed] = folder.glob(f"apache[_-]flink[_-]libraries-{version}.*.tar.gz")
        unpacked = folder / "flink.tmp"
        with tarfile.open(packed) as archive:
            archive.extractall(unpacked, filter="data")
        next(unpacked.glob("*/deps")).rename(home)
        shutil.rmtree(unpacked)
        packed.unlink()
    return sorted((home / "lib").glob("*.jar"))


def environment(folder: pathlib.Path) -> pathlib.Path:
    """The Python of an environment that has apache-beam[gcp]."""
    home = folder / "environment"
    done = home / "installed"
    if not done.exists():
        processes.environment(home, processes.packages())
        python = str(home / "bin" / "python")
        _run(python, "-m", "pip", *_QUIETLY, "install", f"apache-beam[gcp]=={BEAM}")
        done.touch()
    return home / "bin" / "python"


_QUIETLY = ("--quiet", "--disable-pip-version-check")


def _pip(*arguments: str) -> None:
    _run(sys.executable, "-m", "pip", *arguments[:1], *_QUIETLY, *arguments[1:])


def _of_java(program: str) -> None:
    if shutil.which(program) is None:
        raise MissingProgramError(f"there is no {program} on this machine")


def _run(*command: str, around: dict[str, str] | None = None) -> None:
    """Runs a client of a registry; raises MissingProgramError with the last that it said."""
    if shutil.which(command[0]) is None:
        raise MissingProgramError(f"there is no {command[0]} on this machine")
    done = subprocess.run(
        command, env=os.environ | (around or {}), capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise MissingProgramError(f"{' '.join(command)} failed: {_telling(said)}")


def _telling(said: list[str]) -> str:
    """The line that tells most: Maven's last ones are about its help."""
    telling = [line for line in said if "Could not find" in line or "not found" in line]
    return (telling or said or ["without a word"])[-1][:300]


def main() -> None:
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    programs: tuple[Callable[[pathlib.Path], object], ...] = (prism, job_server, flink, environment)
    for program in programs:
        try:
            program(folder)
            print(f"{program.__name__}: in {folder}")
        except MissingProgramError as error:
            print(f"{program.__name__}: {error}")


if __name__ == "__main__":
    main()
