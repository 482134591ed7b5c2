"""The commands that the READMEs name: there after `make env`, with a help that fits a screen."""

import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

from sitn_tf import command_help

ROOT = pathlib.Path(__file__).parents[1]
READMES = "\n".join((ROOT / path / "README.md").read_text() for path in (".", "export/serving"))
MODULES = sorted(set(re.findall(r"python -m ((?:pipelines|sitn_tf|export|tests)[\w.]*)", READMES)))
TARGETS = sorted(set(re.findall(r"(?:`|^)make ([a-z-]+)", READMES, re.MULTILINE)))
PROJECT = [name for name in MODULES if not name.startswith("tests")]


def test_both_kinds_are_found():
    assert {"pipelines.synthetic", "sitn_tf.report", "export.vectors"} <= set(MODULES)
    assert {"quickstart", "test", "line", "audit"} <= set(TARGETS)


@pytest.mark.parametrize("name", MODULES)
def test_the_help_of_a_module_fits_a_screen_and_shows_an_example(name):
    module = importlib.import_module(name)
    text = command_help.screen(module.__doc__, module.FLAGS)
    lines = text.splitlines()
    assert len(lines) <= command_help.LINES
    assert max(map(len, lines)) <= command_help.COLUMNS
    assert re.search(rf"^    .*python -m {re.escape(name)} (--|\\\n +--)", text, re.MULTILINE)
    for flag in module.FLAGS:
        assert re.search(rf"--(\[no\])?{flag}\b", text)


@pytest.mark.parametrize("target", TARGETS)
def test_make_knows_the_target(target):
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_make_alone_lists_every_target_and_makes_nothing():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    command = ["make", "--no-print-directory"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^make ([a-z-]+)  +\S", done.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(targets[1].split())
    assert max(map(len, done.stdout.splitlines())) <= command_help.COLUMNS


@pytest.mark.parametrize("program", ["", "of_another_version"])
def test_another_python_is_told_before_anything_is_made(tmp_path, program):
    other = tmp_path / "of_another_version"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    given = str(other) if program else ""
    done = subprocess.run(
        ["make", "env", f"PYTHON={given}", f"VENV={tmp_path / 'made'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    told = (
        f"error: Python 3.11 is needed, and PYTHON={given} is not: give PYTHON=/path/to/python3.11"
    )
    assert told in done.stderr.splitlines()
    assert not (tmp_path / "made").exists()


def test_no_module_loads_tensorflow_or_speaks_before_it_has_seen_its_flags():
    """TensorFlow takes seconds to load; what others warn of at import is nobody's business."""
    program = f"import sys, {', '.join(PROJECT)}; sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_flag_that_is_not_there_is_told(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "export.versions", "--bad=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "error: Unknown command line flag 'bad': see --help\n"
