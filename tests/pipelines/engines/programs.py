"""What `make test-engines` needs beside this project, into one folder.

    python -m tests.pipelines.engines.programs FOLDER

Prism is built by Go, Flink comes from its Python package and Beam's job server for Flink from
Maven. A Python environment in the folder has apache-beam[gcp] above all that this one has. What
can't be had is told and left out: the tests that want it are skipped for the same reason.
"""

import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable

from tests.pipelines import processes

FOLDER = "SITN_ENGINES"
"""Environment variable: the folder, absolute."""
JOB_SERVER = "FLINK_JOB_SERVER"
"""Environment variable: a jar to take instead of Maven's."""
BEAM = importlib.metadata.version("apache-beam")
FLINK = "1.20"
_JOB_SERVER = f"beam-runners-flink-{FLINK}-job-server"


class MissingProgramError(Exception):
    """A program that this machine has not got, and why."""


def prism(folder: pathlib.Path) -> pathlib.Path:
    """Beam's runner in Go, of this environment's version of Beam."""
    program = folder / "bin" / "prism"
    if not program.exists():
        module = f"github.com/apache/beam/sdks/v2/go/cmd/prism@v{BEAM}"
        _run("go", "install", module, around={"GOBIN": str(program.parent)})
    return program


def flink(folder: pathlib.Path) -> list[pathlib.Path]:
    """The jars of a Flink cluster."""
    _of_java("java")
    home = folder / "flink"
    if not home.exists():
        _pip("download", "--no-deps", f"--dest={folder}", f"apache-flink-libraries=={FLINK}.*")
        [packed] = folder.glob("apache_flink_libraries-*.tar.gz")
        unpacked = folder / "flink.tmp"
        with tarfile.open(packed) as archive:
            archive.extractall(unpacked, filter="data")
        next(unpacked.glob("*/deps")).rename(home)
        shutil.rmtree(unpacked)
        packed.unlink()
    return sorted((home / "lib").glob("*.jar"))


def job_server(folder: pathlib.Path) -> pathlib.Path:
    """The jar of Beam's job server for Flink."""
    _of_java("java")
    if given := os.environ.get(JOB_SERVER):
        return pathlib.Path(given)
    jar = folder / f"{_JOB_SERVER}-{BEAM}.jar"
    if not jar.exists():
        _of_java("mvn")
        artifact = f"org.apache.beam:{_JOB_SERVER}:{BEAM}"
        goal = "org.apache.maven.plugins:maven-dependency-plugin:copy"
        where = (f"-Dartifact={artifact}", f"-DoutputDirectory={folder}")
        _run("mvn", "--batch-mode", "--quiet", goal, *where)
    return jar


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
    programs: tuple[Callable[[pathlib.Path], object], ...] = (prism, flink, job_server, environment)
    for program in programs:
        try:
            program(folder)
            print(f"{program.__name__}: in {folder}")
        except MissingProgramError as error:
            print(f"{program.__name__}: {error}")


if __name__ == "__main__":
    main()
