"""The runs of a study: each arm and seed trained by the commands that anyone would give.

`<workdir>/<arm>/<seed>/stage1` and `stage2`, and what the commands said in `log.txt` beside them.
"""

import dataclasses
import math
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from sitn_tf import config, runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.studies.arms import Arm
from sitn_tf.studies.tables import Result

LOG_FILE = "log.txt"


@dataclasses.dataclass(frozen=True)
class Study:
    """What is trained and how it is judged.

    Attributes:
      data_dir: the data set.
      workdir: parent of the runs.
      arms: by name.
      seeds: 0, 1, … of each arm.
      stage: "2", judged by click AUC, or "1", by held-out retrieval without a stage 2.
      split: of stage 2, what is scored.
      preset, settings: `section.field=value`, of every arm.
    """

    data_dir: str
    workdir: pathlib.Path
    arms: Mapping[str, Arm]
    seeds: int = 3
    stage: str = "2"
    split: str = schema.VALIDATION
    preset: str = "default"
    settings: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.split not in schema.STAGE2_SPLITS[1:]:
            raise InputError(
                f"split={self.split} is not one of: {', '.join(schema.STAGE2_SPLITS[1:])}"
            )
        if not self.arms:
            raise InputError(f"stage={self.stage}: no arm of the study has a stage 1")
        for arm in self.arms.values():
            chosen = config.override(config.preset(self.preset), [*self.settings, *arm.settings])
            # A stage 1 trains sequence encoders.
            if arm.pretrain and "encoder" not in config.sections_of(chosen.model.name):
                raise InputError(
                    f"model.name={chosen.model.name} has no stage 1, which an arm of the study "
                    "trains",
                    "study it with the arms of another study, or another model",
                )

    @property
    def results_file(self) -> pathlib.Path:
        """Where the results go: one file a measure, so that none replaces another's."""
        what = "recall" if self.stage == "1" else self.split
        return self.workdir / f"results-{what}.json"

    @property
    def measure(self) -> str:
        return "held-out recall@10" if self.stage == "1" else f"{self.split} AUC"


def run_study(study: Study) -> list[Result]:
    """Runs what is missing, seed by seed, and keeps the results after each run.

    Raises:
      InputError: no such data set, or a command failed; its words are in the run's log.
    """
    schema.read_manifest(study.data_dir)
    results: list[Result] = []
    total = study.seeds * len(study.arms)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        for seed in range(study.seeds):
            for name, arm in study.arms.items():
                result = run_one(study, name, arm, seed)
                results.append(result)
                print(
                    f"[{len(results)}/{total}] {name}, seed {seed}: {study.measure} "
                    f"{result.score:.4f}",
                    flush=True,
                )
                rows = [dataclasses.asdict(result) for result in results]
                whole_files.write_json(study.results_file, rows)
    finally:
        signal.signal(signal.SIGTERM, before)
    return results


def _end(number: int, _: object) -> NoReturn:
    """Lets a signal end the trainer too."""
    sys.exit(128 + number)


def run_one(study: Study, name: str, arm: Arm, seed: int) -> Result:
    """Trains what is not finished of an arm with a seed, and reads the result.

    Raises:
      InputError: a training command failed; its words are in the arm's log.
    """
    run = study.workdir / name / str(seed)
    run.mkdir(parents=True, exist_ok=True)
    given = [f"--data_dir={study.data_dir}", f"--workdir={run}", f"--seed={seed}"]
    # A study is to say what stage 1 is worth, also where it found little to transfer.
    given += [f"--preset={study.preset}", "--set=stage2.min_lift=0"]
    given += [f"--set={setting}" for setting in (*study.settings, *arm.settings)]
    commands = [["--stage=1", *given]] if arm.pretrain else []
    if study.stage == "2":
        commands.append(["--stage=2", *given, *([] if arm.pretrain else ["--init=none"])])
    for command in commands:
        _call(["sitn_tf.train", *command], run / LOG_FILE)
    recall = chance = math.nan
    if arm.pretrain:
        held_out = _read_metrics(run / schema.STAGE1)[schema.VALIDATION]
        recall, chance = held_out["recall"], held_out["chance"]
    score = recall if study.stage == "1" else auc(run / schema.STAGE2, study.split)
    return Result(name, seed, score, recall, chance)


def _call(command: Sequence[str], log: pathlib.Path) -> None:
    """Runs a module's command, its output appended to a log; raises InputError if it fails."""
    with log.open("a") as output:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=output, stderr=output)
        try:
            status = process.wait()
        except BaseException:
            # A trainer that lives on would write what the next one writes.
            process.terminate()
            process.wait()
            raise
    if status:
        raise InputError(
            f"python -m {' '.join(command)} ended with status {status} ({last_words(log)})",
            f"see {log}; a run of other settings there needs another workdir",
        )


def last_words(log: pathlib.Path) -> str:
    """The last error that a log tells, its last line where it tells none."""
    lines = [line for line in log.read_text().splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it said nothing"])[-1]


def auc(run_dir: pathlib.Path, split: str) -> float:
    """AUC of a finished stage-2 run on a split, by `sitn_tf.evaluate` where it is not known."""
    if split not in _read_metrics(run_dir):
        command = ["sitn_tf.evaluate", f"--run_dir={run_dir}", f"--split={split}"]
        _call(command, run_dir.parent / LOG_FILE)
    return float(_read_metrics(run_dir)[split]["auc"])


def _read_metrics(run_dir: pathlib.Path) -> dict[str, dict[str, float]]:
    return runs.read_json(run_dir / runs.METRICS_FILE, {})
