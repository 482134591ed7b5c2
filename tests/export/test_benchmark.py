"""The serving benchmark runs, and its two forms give the same scores."""

import json

import numpy as np
import pytest

from tests.benchmarks import serving, serving_memory
from tests.commands import run_main
from tests.export.serving_double import serve


def test_a_queue_of_constant_service_times():
    # Every request takes 1 and one arrives each 2: nobody waits.
    np.testing.assert_allclose(serving.queue(1, 0.5, 50, poisson=False), 1.0)
    # M/D/1 (Pollaczek-Khinchine): mean wait load / (2 (1 - load)) = 0.5.
    waits = serving.queue(1, 0.5, 100_000, poisson=True) - 1.0
    assert abs(waits.mean() - 0.5) < 0.03


@pytest.mark.slow
def test_the_benchmark_prints_what_it_measured(tmp_path, capsys):
    output = tmp_path / "results.json"
    run_main(
        serving, "--items=300", "--candidates=50", "--history=20", "--requests=20", "--turns=1",
        f"--output={output}",
    )  # fmt: skip
    found = json.loads(output.read_text())
    assert found["p50_ratio"] > 1
    assert found["throughput_ratio"] > 1
    said = capsys.readouterr().out
    assert "times as fast" in said
    for candidates in serving.BATCHED:
        assert found[f"batching_gain_{candidates}"] > 0
        assert f"{candidates} candidates, 2 calls in flight: " in said


@pytest.mark.slow
def test_the_memory_of_every_setting_is_measured(servable, capsys):
    run_main(
        serving_memory, f"--servable={servable / '1'}", "--threads=2", "--turns=1",
        "--seconds=0.1",
    )  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(serving_memory.SETTINGS)
    assert all("MB" in line or "not installed" in line for line in lines)


@pytest.mark.slow
def test_servers_are_measured(servable):
    serving.FLAGS(["serving", "--requests=20"])
    with serve(servable / "1") as (_, addresses):
        lines = serving.measure_servers(servable / "1", 5, [addresses["grpc"]])
    assert len(lines) == len(serving.BATCHED)
    assert all("requests/s, p50" in line for line in lines)
