"""README's program, run as it stands there, on small synthetic logs."""

import os
import pathlib
import re
import subprocess
import sys

from pipelines import synthetic
from tests.commands import run_main

ROOT = pathlib.Path(__file__).parents[1]


def program() -> str:
    section = (ROOT / "README.md").read_text().split("\n## From Python\n")[1]
    [text] = re.findall(
        r"^```python\n(.*?)^```$", section.split("\n## ")[0], re.DOTALL | re.MULTILINE
    )
    return text


def test_the_program_of_the_readme_runs(tmp_path):
    run_main(synthetic, f"--output={tmp_path / 'logs'}", "--users=300")
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
    lines = done.stdout.splitlines()
    assert re.search(r"^run/stage2( +0\.\d{4}){2}", done.stdout, re.MULTILINE)
    assert re.search(r"^item popularity( +0\.\d{4}){2}", done.stdout, re.MULTILINE)
    scores = [float(number) for number in re.findall(r"[\d.e-]+", lines[-1])]
    assert len(scores) == 2
    assert all(0 < score < 1 for score in scores)
    assert (tmp_path / "servable" / "1" / "saved_model.pb").is_file()
