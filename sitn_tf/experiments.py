"""Trains the arms of a study over seeds: a data set directory → a table of differences.

    python -m sitn_tf.experiments --study=transfer --data_dir=DATASET --workdir=STUDY

Each arm and seed is a run of its own, `STUDY/<arm>/<seed>/stage1` and `stage2`, trained by the
commands that anyone would give. The same command continues an interrupted study: finished
runs are kept. `--split=validation` (the default) is for choosing settings; give
`--split=test` once, when nothing is left to choose.
"""

import dataclasses
import json
import math
import pathlib
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
from absl import flags

from sitn_tf import cli, config, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Parent of the study's runs.", flag_values=FLAGS)
_STUDY = flags.DEFINE_string(
    "study", "transfer", "Name of a study, or a JSON file of arms.", flag_values=FLAGS
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds 0, 1, … of each arm.", 1, flag_values=FLAGS)
_ARMS = flags.DEFINE_list("arms", [], "Only these arms of the study.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", schema.VALIDATION, "What is scored.", flag_values=FLAGS)
_STAGE = flags.DEFINE_enum(
    "stage",
    "2",
    ["1", "2"],
    "2: judged by click AUC; 1: without a stage 2, by held-out retrieval.",
    flag_values=FLAGS,
)
_PRESET = flags.DEFINE_string("preset", "default", "Preset of every arm.", flag_values=FLAGS)
_SET = flags.DEFINE_multi_string(
    "set", [], "section.field=value, for every arm.", flag_values=FLAGS
)

RESULTS_FILE = "results.json"
LOG_FILE = "log.txt"


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of a study.

    Attributes:
      settings: `section.field=value`, for both stages.
      pretrain: whether there is a stage 1.
    """

    settings: tuple[str, ...] = ()
    pretrain: bool = True


SCRATCH = Arm(pretrain=False)
TRANSFER = {
    "from_scratch": SCRATCH,
    "i2i": Arm(("contrast.i2c_weight=0",)),
    "i2i_i2c": Arm(),
}
"""What stage 1 is worth, and what i2c adds to it. The first arm of a study is its baseline."""

GAPS = {
    "default": Arm(),
    "from_scratch": SCRATCH,
    "i2i_alone": Arm(("contrast.i2c_weight=0",)),
    "i2c_alone": Arm(("contrast.i2i_weight=0",)),
    "dot": Arm(("contrast.similarity=dot",)),
    "temperature_0.05": Arm(("contrast.temperature=0.05",)),
    "temperature_0.2": Arm(("contrast.temperature=0.2",)),
    "temperature_1": Arm(("contrast.temperature=1",)),
    "assignment_1": Arm(("contrast.assignment_temperature=1",)),
    "cluster_norm_mean": Arm(("contrast.cluster_norm=mean",)),
    "cluster_init_shared": Arm(("contrast.cluster_init=shared",)),
    "cluster_init_normal": Arm(("contrast.cluster_init=normal",)),
    "view_mlp": Arm(("contrast.view=mlp",)),
    "negatives_views": Arm(("contrast.negatives=views",)),
    "exclude_own": Arm(("contrast.exclude_own=true",)),
    "stop_cluster_gradient": Arm(("contrast.stop_cluster_gradient=true",)),
    "top_k_1": Arm(("contrast.top_k=1",)),
    "one_granularity_32": Arm(("contrast.granularities=32",)),
    "i2c_after_100": Arm(("stage1.i2c_after=100",)),
    "no_mask": Arm(("stage1.item_mask=0",)),
    "crop_and_shuffle": Arm(("stage1.item_crop=0.3", "stage1.item_shuffle=0.3")),
    "train_ids": Arm(("stage1.train_ids=true",)),
    "freeze": Arm(("stage2.encoders=freeze",)),
    "contrast_in_stage_2": Arm(("stage2.contrast_weight=0.01",)),
    "no_residual": Arm(("encoder.residual=false",)),
    "layer_norm": Arm(("encoder.layer_norm=true",)),
    "no_positions": Arm(("encoder.positions=false",)),
    "no_products": Arm(("mlp.products=false",)),
    "din_unit": Arm(("sitn.target_attention=din",)),
}
"""The gaps of the paper, one change of the default at a time."""

STUDIES: Mapping[str, Mapping[str, Arm]] = {"transfer": TRANSFER, "gaps": GAPS}


@dataclasses.dataclass(frozen=True)
class Result:
    """One finished run.

    Attributes:
      score: AUC on the study's split, or with --stage=1 the held-out recall@10.
      recall, chance: of stage 1's held-out retrieval, NaN without a stage 1.
    """

    arm: str
    seed: int
    score: float
    recall: float = math.nan
    chance: float = math.nan


def read_study(name: str, only: Sequence[str]) -> dict[str, Arm]:
    """Arms by name, the baseline first.

    Raises:
      InputError: no such study, file or arm.
    """
    if name in STUDIES:
        arms = dict(STUDIES[name])
    elif pathlib.Path(name).is_file():
        arms = _read_arms(pathlib.Path(name))
    else:
        raise InputError(
            f"--study={name} is neither one of: {', '.join(STUDIES)}, nor a JSON file of arms"
        )
    unknown = [arm for arm in only if arm not in arms]
    if unknown:
        raise InputError(f"--arms={unknown[0]} is not one of: {', '.join(arms)}")
    return {arm: arms[arm] for arm in only} if only else arms


def _read_arms(path: pathlib.Path) -> dict[str, Arm]:
    try:
        described = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"--study={path} is not JSON: {error}") from error
    if not isinstance(described, dict) or not described:
        raise InputError(f"--study={path} is not a JSON object of arms, such as {_EXAMPLE}")
    return {name: _read_arm(path, name, arm) for name, arm in described.items()}


def _read_arm(path: pathlib.Path, name: str, described: object) -> Arm:
    where = f"--study={path}, arm {name!r}"
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(f"{where} names a folder: give it letters, digits, '_', '.' and '-'")
    if not isinstance(described, dict):
        raise InputError(f"{where} is {described!r}, not an object such as in {_EXAMPLE}")
    unknown = sorted(described.keys() - {"settings", "pretrain"})
    if unknown:
        raise InputError(f"{where}: {unknown[0]!r} is not one of: settings, pretrain")
    settings, pretrain = described.get("settings", []), described.get("pretrain", True)
    if not isinstance(settings, list) or not all(isinstance(s, str) for s in settings):
        raise InputError(f"{where}: settings={settings!r} is not a list of strings")
    if not isinstance(pretrain, bool):
        raise InputError(f"{where}: pretrain={pretrain!r} is not true or false")
    return Arm(tuple(settings), pretrain)


_EXAMPLE = '{"wide": {"settings": ["model.embedding_dim=64"], "pretrain": true}}'


def interval(differences: np.ndarray) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of Student's t; NaN for one difference.

    Args:
      differences: `[seeds]`, of an arm and the baseline with the same seed.
    """
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    if n < 2:
        return mean, math.nan
    quantile = T_975[min(n - 1, len(T_975)) - 1]
    return mean, float(quantile * np.std(differences, ddof=1) / math.sqrt(n))


T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Quantiles of Student's t at 1, 2, … 10 degrees of freedom; beyond, the last errs on the wide
side by less than 14 %."""


def table(results: Sequence[Result], arms: Sequence[str], measure: str) -> str:
    """Markdown: an arm a row, with its difference to the first arm over the shared seeds.

    Args:
      measure: what the results' scores are.
    """
    by_arm = {arm: {r.seed: r for r in results if r.arm == arm} for arm in arms}
    baseline = by_arm[arms[0]]
    lines = [
        f"| arm | seeds | {measure}, mean ± sd | minus {arms[0]}, 95 % interval | "
        "held-out recall@10 (chance) |",
        "|---|---|---|---|---|",
    ]
    for arm in arms:
        found = by_arm[arm]
        if not found:
            lines.append(f"| {arm} | 0 | not run | | |")
            continue
        scores = np.array([r.score for r in found.values()])
        spread = f" ± {np.std(scores, ddof=1):.4f}" if len(scores) > 1 else ""
        shared = sorted(found.keys() & baseline.keys())
        mean, half = interval(np.array([found[s].score - baseline[s].score for s in shared]))
        margin = "" if math.isnan(half) else f" ± {half:.4f}"
        difference = "" if arm == arms[0] or not shared else f"{mean:+.4f}{margin}"
        recalls = [r.recall for r in found.values() if not math.isnan(r.recall)]
        chance = next(iter(found.values())).chance
        recall = f"{np.mean(recalls):.3f} ({chance:.3f})" if recalls else ""
        lines.append(
            f"| {arm} | {len(scores)} | {np.mean(scores):.4f}{spread} | {difference} | {recall} |"
        )
    return "\n".join(lines)


def run_one(
    workdir: pathlib.Path, data_dir: str, name: str, arm: Arm, seed: int, shared: Sequence[str]
) -> pathlib.Path:
    """Trains what is not finished of an arm with a seed; returns the parent of its runs.

    Raises:
      InputError: a training command failed; its words are in the arm's log.
    """
    run = workdir / name / str(seed)
    run.mkdir(parents=True, exist_ok=True)
    given = [f"--data_dir={data_dir}", f"--workdir={run}", f"--seed={seed}"]
    # A study is to say what stage 1 is worth, also where it found little to transfer.
    given += [f"--preset={_PRESET.value}", "--set=stage2.min_lift=0"]
    given += [f"--set={setting}" for setting in (*shared, *arm.settings)]
    commands = [["--stage=1", *given]] if arm.pretrain else []
    if _STAGE.value == "2":
        commands.append(["--stage=2", *given, *([] if arm.pretrain else ["--init=none"])])
    for command in commands:
        _call(["sitn_tf.train", *command], run / LOG_FILE)
    return run


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
        raise InputError(f"python -m {' '.join(command)} ended with status {status}; see {log}")


def auc(run_dir: pathlib.Path, split: str) -> float:
    """AUC of a finished stage-2 run on a split, by `sitn_tf.evaluate` where it is not known."""
    if split not in _read_metrics(run_dir):
        command = ["sitn_tf.evaluate", f"--run_dir={run_dir}", f"--split={split}"]
        _call(command, run_dir.parent / LOG_FILE)
    return float(_read_metrics(run_dir)[split]["auc"])


def _read_metrics(run_dir: pathlib.Path) -> dict[str, dict[str, float]]:
    metrics: dict[str, dict[str, float]] = json.loads((run_dir / "metrics.json").read_text())
    return metrics


def main(_: list[str]) -> None:
    """Runs what is missing, seed by seed, and shows the table after each run."""
    data_dir = cli.require(FLAGS, "data_dir")
    workdir = pathlib.Path(cli.require(FLAGS, "workdir"))
    if _SPLIT.value not in schema.STAGE2_SPLITS[1:]:
        raise InputError(
            f"--split={_SPLIT.value} is not one of: {', '.join(schema.STAGE2_SPLITS[1:])}"
        )
    arms = read_study(_STUDY.value, _ARMS.value)
    schema.read_manifest(data_dir)
    if _STAGE.value == "1":
        arms = {name: arm for name, arm in arms.items() if arm.pretrain}
        if not arms:
            raise InputError("--stage=1: no arm of the study has a stage 1")
    for arm in arms.values():
        config.override(config.preset(_PRESET.value), [*_SET.value, *arm.settings])
    before = signal.signal(signal.SIGTERM, _end)
    try:
        _run_study(arms, data_dir, workdir)
    finally:
        signal.signal(signal.SIGTERM, before)


def _run_study(arms: Mapping[str, Arm], data_dir: str, workdir: pathlib.Path) -> None:
    results: list[Result] = []
    total = _SEEDS.value * len(arms)
    measure = "held-out recall@10" if _STAGE.value == "1" else f"{_SPLIT.value} AUC"
    for seed in range(_SEEDS.value):
        for name, arm in arms.items():
            run = run_one(workdir, data_dir, name, arm, seed, _SET.value)
            results.append(_read_result(run, name, arm, seed))
            print(
                f"[{len(results)}/{total}] {name}, seed {seed}: {measure} {results[-1].score:.4f}",
                flush=True,
            )
            rows = [dataclasses.asdict(result) for result in results]
            (workdir / RESULTS_FILE).write_text(json.dumps(rows, indent=2) + "\n")
    print(table(results, list(arms), measure))
    print(f"wrote {workdir / RESULTS_FILE}")
    if _STAGE.value == "2" and _SPLIT.value != schema.TEST:
        print("next: the same with --split=test, when nothing is left to choose")


def _end(number: int, _: object) -> NoReturn:
    """Lets a signal end the trainer too."""
    sys.exit(128 + number)


def _read_result(run: pathlib.Path, name: str, arm: Arm, seed: int) -> Result:
    recall = chance = math.nan
    if arm.pretrain:
        metrics = _read_metrics(run / schema.STAGE1)["validation"]
        recall, chance = metrics["recall"], metrics["chance"]
    score = recall if _STAGE.value == "1" else auc(run / schema.STAGE2, _SPLIT.value)
    return Result(name, seed, score, recall, chance)


if __name__ == "__main__":
    cli.run(main, FLAGS)
