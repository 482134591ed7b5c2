"""No cost that grows with the table, by the clock (slow)."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("optimizer", ["adam", "adagrad", "ftrl"])
def test_a_step_beside_a_hundred_times_the_rows(optimizer, replicas):
    command = [sys.executable, "-m", "tests.benchmarks.step_cost", f"--optimizer={optimizer}"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    said = subprocess.run(
        [*command, f"--replicas={replicas}"],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert float(re.search(r"^ratio (\S+)$", said, re.MULTILINE)[1]) <= 1.2, said
    held, grown = (int(n.replace(",", "")) for n in re.findall(r"([\d,]+) MB(?: of|,)", said))
    # A copy of one table would be a third of the whole, or more. Graphs and threads take 25 MB.
    assert grown - held <= 0.1 * held + 50, said
