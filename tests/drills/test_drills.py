"""The short drills lose nothing, and a loss is told."""

from tests.drills import __main__ as drills
from tests.drills.outcome import Outcome

ELSEWHERE = ("load", "hostile")
"""They have tests of their own: tests/export/test_load.py, and those that import tests/fuzzing."""


def test_the_short_drills_lose_nothing(tmp_path):
    names = [name for name in drills.DRILLS if name not in ELSEWHERE]
    found = list(drills.run(names, tmp_path, short=True))
    assert all(outcome.tried for outcome in found if not outcome.skipped)
    assert [what for outcome in found for what in outcome.lost] == []


def test_a_loss_is_counted_and_named():
    found = [
        Outcome("kill -9: build", 20, ("manifest.json differs (python -m ...)",)),
        Outcome("full disk: build", 0, skipped="only root may mount"),
    ]
    told = drills.report(found, 90.0)
    assert "20 times in 1.5 minutes" in told
    assert "| kill -9: build | 20 | 19 | 1 |" in told
    assert "| full disk: build | 0 | 0 | only root may mount |" in told
    assert "- kill -9: build: manifest.json differs (python -m ...)" in told
