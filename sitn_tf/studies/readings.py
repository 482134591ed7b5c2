"""Who has looked at the test data, and when: runs that a study scored → `test_readings.json`.

What is chosen after a look at the test split has been chosen by it. So a study keeps each reading,
and its results say how many there were. A reading goes on while one and the same study (data,
settings of its arms, number of seeds) scores what it has not scored yet, interrupted or not.
Anything else is another reading: other arms or settings, more seeds, and an arm and seed that are
scored again, whatever became of their run.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Mapping, Sequence

from sitn_tf import runs, whole_files

FILE = "test_readings.json"


@dataclasses.dataclass(frozen=True)
class Reading:
    """One reading.

    Attributes:
      began: when, UTC, to the second.
      study: its name.
      dataset_hash: of the data set.
      settings_hash: of all arms' settings and the number of seeds.
      seeds: that were scored, by arm.
    """

    began: str
    study: str
    dataset_hash: str
    settings_hash: str
    seeds: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)

    def has(self, arm: str, seed: int) -> bool:
        return seed in self.seeds.get(arm, [])

    def is_of(self, other: "Reading") -> bool:
        """Whether both are of one and the same study."""
        same = ("study", "dataset_hash", "settings_hash")
        return all(getattr(self, field) == getattr(other, field) for field in same)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read(workdir: pathlib.Path) -> list[Reading]:
    """Those so far, the first one first."""
    return [Reading(**reading) for reading in runs.read_json(workdir / FILE, [])]


def record(workdir: pathlib.Path, current: Reading, arm: str, seed: int) -> None:
    """Keeps that a run was scored."""
    readings = add(read(workdir), current, arm, seed)
    whole_files.write_json(workdir / FILE, [dataclasses.asdict(reading) for reading in readings])


def add(readings: Sequence[Reading], current: Reading, arm: str, seed: int) -> list[Reading]:
    """The readings with one more run: in the last one if that goes on, else in a new one.

    Args:
      current: of the study that scored the run; what it has scored before does not count.
    """
    *before, last = readings or [current]
    if not last.is_of(current) or last.has(arm, seed):
        before, last = [*before, last], dataclasses.replace(current, seeds={})
    seeds = {**last.seeds, arm: [*last.seeds.get(arm, []), seed]}
    return [*before, dataclasses.replace(last, seeds=seeds)]


def describe(readings: Sequence[Reading]) -> str:
    """One sentence, "" without a reading."""
    if not readings:
        return ""
    told = [f"{r.began} ({r.study}: {', '.join(map(_seeds, r.seeds.items()))})" for r in readings]
    times = "once" if len(readings) == 1 else f"{len(readings)} times"
    return f"The test split was read {times} in this study: {'; '.join(told)}."


def _seeds(scored: tuple[str, Sequence[int]]) -> str:
    arm, seeds = scored
    return f"{arm} {' '.join(map(str, sorted(seeds)))}"
