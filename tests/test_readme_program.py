"""README's program, run as it stands there, on small synthetic logs."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from pipelines import synthetic
from sitn_tf import config
from tests.commands import run_main

ROOT = pathlib.Path(__file__).parents[1]


def program() -> str:
    section = (ROOT / "README.md").read_text().split("\n## From Python\n")[1]
    [text] = re.findall(
        r"^```python\n(.*?)^```$", section.split("\n## ")[0], re.DOTALL | re.MULTILINE
    )
    return text


def write_logs(folder, users):
    run_main(synthetic, f"--output={folder / 'logs'}", f"--users={users}")


def assert_it_came_to_something(printed, folder):
    lines = printed.splitlines()
    assert re.search(r"^run/stage2( +0\.\d{4}){2}", printed, re.MULTILINE)
    assert re.search(r"^item popularity( +0\.\d{4}){2}", printed, re.MULTILINE)
    scores = [float(number) for number in re.findall(r"[\d.e-]+", lines[-1])]
    assert len(scores) == 2
    assert all(0 < score < 1 for score in scores)
    assert (folder / "servable" / "1" / "saved_model.pb").is_file()


def test_the_program_of_the_readme_runs_with_a_small_model(tmp_path, monkeypatch, capsys, op_by_op):
    """A real race among it."""
    settings = ["stage1.batch_size=128", "stage2.batch_size=256", "stage2.race_steps=1"]
    small = config.override(config.tiny(), settings)
    monkeypatch.setattr(config, "default", lambda: small)
    monkeypatch.chdir(tmp_path)
    write_logs(tmp_path, users=100)
    exec(compile(program(), "README.md", "exec"), {"__name__": "program"})
    printed = capsys.readouterr().out
    assert "the race went to " in printed
    assert_it_came_to_something(printed, tmp_path)


@pytest.mark.slow
def test_the_program_of_the_readme_runs(tmp_path):
    write_logs(tmp_path, users=300)
    (tmp_path / "program.py").write_text(program())
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert_it_came_to_something(done.stdout, tmp_path)
