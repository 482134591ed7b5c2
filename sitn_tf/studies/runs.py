"""The runs of a study: each arm and seed trained as by the commands that anyone would give.

<workdir>/<arm>/<seed>/stage2       the run, with its predictions of the split
<workdir>/<arm>/<seed>/log.txt      what was said while it was trained, see studies/run_logs.py
<workdir>/stage1/<settings>/<seed>  a stage 1: one for all arms that differ only in what comes after
<workdir>/results-<split>.json      what all of them came to
<workdir>/results-<split>.md, .html the same for people
<workdir>/test_readings.json        when the test split was read, see studies/readings.py
"""

import dataclasses
import gc
import hashlib
import json
import math
import pathlib
import sys
import time
import traceback
from collections.abc import Collection, Mapping, Sequence

from sitn_tf import config, evaluate, quiet, runs, schema, train, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions
from sitn_tf.studies import readings, run_logs, workers
from sitn_tf.studies.arms import AS_IT_IS, Arm
from sitn_tf.studies.tables import RACE, Result

OTHER_WORKDIR = "give a study of other settings another workdir"
"""The remedy where runs of other settings lie."""


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
      name: of the study.
      keep_predictions: whether runs of stage 2 keep what they say of every candidate of the split.
    """

    data_dir: str
    workdir: pathlib.Path
    arms: Mapping[str, Arm]
    seeds: int = 3
    stage: str = "2"
    split: str = schema.VALIDATION
    preset: str = "default"
    settings: Sequence[str] = ()
    name: str = ""
    keep_predictions: bool = True

    def __post_init__(self) -> None:
        if self.split not in schema.STAGE2_SPLITS[1:]:
            raise InputError(
                f"split={self.split} is not one of: {', '.join(schema.STAGE2_SPLITS[1:])}"
            )
        if not self.arms:
            raise InputError(f"stage={self.stage}: no arm of the study has a stage 1")
        for arm in self.arms.values():
            chosen = self.config(arm)
            if arm.pretrain and not config.has_stage1(chosen.model.name):
                raise InputError(
                    f"model.name={chosen.model.name} has no stage 1, which an arm of the study "
                    "trains",
                    "study it with the arms of another study, or another model",
                )

    def config(self, arm: Arm) -> config.Config:
        """Of seed 0."""
        settings = [*AS_IT_IS, *self.settings, *arm.settings]
        return config.override(config.preset(self.preset), settings)

    @property
    def raced(self) -> list[str]:
        """Names of the arms whose starts race."""
        return [
            name for name, arm in self.arms.items()
            if arm.pretrain and self.stage == "2" and self.config(arm).stage2.race_steps
        ]  # fmt: skip

    def runs(self) -> list["Run"]:
        """Every seed of every arm, seed by seed."""
        manifest = schema.read_manifest(self.data_dir)
        return [
            Run(self, name, seed, dataclasses.replace(self.config(arm), seed=seed), manifest)
            for seed in range(self.seeds)
            for name, arm in self.arms.items()
        ]

    def reading(self) -> readings.Reading | None:
        """What it is among the readings of the test split; None where it reads another."""
        if self.stage == "1" or self.split != schema.TEST:
            return None
        arms = {
            name: [arm.pretrain, self.config(arm).used("seed")] for name, arm in self.arms.items()
        }
        return readings.Reading(
            began=readings.now(),
            study=self.name,
            dataset_hash=schema.read_manifest(self.data_dir).dataset_hash,
            settings_hash=short_hash([arms, self.seeds]),
        )

    @property
    def results_file(self) -> pathlib.Path:
        """Where the results go: one file a measure, so that none replaces another's."""
        what = "recall" if self.stage == "1" else self.split
        return self.workdir / f"results-{what}.json"

    @property
    def measure(self) -> str:
        return "held-out recall@10" if self.stage == "1" else f"{self.split} AUC"


@dataclasses.dataclass(frozen=True)
class Run:
    """One arm with one seed.

    Attributes:
      config: of both stages.
      manifest: of the study's data set.
    """

    study: Study
    arm: str
    seed: int
    config: config.Config
    manifest: schema.Manifest

    @property
    def log(self) -> pathlib.Path:
        return self.study.workdir / self.arm / str(self.seed) / run_logs.FILE

    @property
    def stage2(self) -> pathlib.Path:
        """Its run directory."""
        return self.log.parent / schema.STAGE2

    @property
    def stage1(self) -> pathlib.Path | None:
        """Run directory of the stage 1 that it starts from; None without one."""
        if not self.study.arms[self.arm].pretrain:
            return None
        depends_on = [self.manifest.dataset_hash, config.for_stage1(self.config).used("seed")]
        return self.study.workdir / schema.STAGE1 / short_hash(depends_on) / str(self.seed)

    def is_finished(self) -> bool:
        """Whether the run of this very configuration and start is there, scored.

        Raises:
          InputError: there is another one.
        """
        if self.study.stage == "1":
            return self.stage1 is not None and runs.is_finished(self.stage1)
        if not (self.stage2 / runs.RUN_FILE).is_file():
            return False
        changed = self.changed()
        if changed:
            raise InputError(
                f"{self.stage2} holds another run (there, here: {'; '.join(changed)})",
                OTHER_WORKDIR,
            )
        return self.is_scored()

    def changed(self, but: Collection[str] = ()) -> list[str]:
        """How the run that lies there differs from this one, if it does and one lies there.

        Args:
          but: fields of the configuration that may be others.
        """
        if not (self.stage2 / runs.RUN_FILE).is_file():
            return []
        changed = config.differences(runs.read_asked(self.stage2), self.config, but=but)
        if runs.read_info(self.stage2).dataset_hash != self.manifest.dataset_hash:
            changed.append("another data set")
        if runs.was_offered_stage1(self.stage2) != (self.stage1 is not None):
            told = "a stage 1, none" if self.stage1 is None else "no stage 1, one"
            changed.append(f"offered {told}")
        return changed

    def is_scored(self) -> bool:
        """Whether its metrics are there, and its predictions where the study keeps them.

        Training scores the validation split itself, and keeps no predictions.
        """
        split = self.study.split
        kept = kept_predictions.path(self.stage2, split).is_file()
        return split in _metrics(self.stage2) and (kept or not self.study.keep_predictions)

    def result(self) -> Result:
        """Of the finished run."""
        dirs = {schema.STAGE1: self.stage1, schema.STAGE2: self.stage2}
        if self.study.stage == "1":
            del dirs[schema.STAGE2]
        there = {stage: run_dir for stage, run_dir in dirs.items() if run_dir is not None}
        best = {stage: _metrics(run_dir)[schema.VALIDATION] for stage, run_dir in there.items()}
        held_out = best.get(schema.STAGE1, {})
        split = _metrics(self.stage2)[self.study.split] if self.study.stage == "2" else {}
        frozen = self.config.stage2.encoders == "freeze"
        return Result(
            self.arm,
            self.seed,
            score=float(split["auc"] if split else held_out["recall"]),
            recall=held_out.get("recall", math.nan),
            chance=held_out.get("chance", math.nan),
            metrics=split,
            epoch={stage: int(entry["epoch"]) for stage, entry in best.items()},
            seconds={stage: _seconds(run_dir) for stage, run_dir in there.items()}
            | _lost_seconds(self.stage2),
            parameters=_parameters(self.stage2, frozen) if split else None,
            commit=runs.read_info([*there.values()][-1]).commit,
        )


def short_hash(value: object) -> str:
    """Twelve hexadecimal digits that depend on all of what JSON can say."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def run_study(study: Study, jobs: int = 1) -> tuple[list[Result], list[str]]:
    """Runs what is missing, and keeps the results after each run that gives one.

    Args:
      jobs: runs at a time, each in a process of its own.

    Returns:
      What is finished, and which runs failed with which words; one that fails does not keep the
      others from being run.

    Raises:
      InputError: no such data set, or runs of other settings.
    """
    planned = study.runs()
    finished = [run for run in planned if run.is_finished()]
    results = [run.result() for run in finished]
    missing = [run for run in planned if not run.is_finished()]

    def keep() -> None:
        rows = [dataclasses.asdict(result) for result in results]
        whole_files.write_json(study.results_file, rows)

    reading = study.reading()

    def keep_reading(run: Run) -> None:
        if reading is not None:
            readings.record(study.workdir, reading, run.arm, run.seed)

    known = readings.read(study.workdir)
    for run in finished:
        if not any(earlier.has(run.arm, run.seed) for earlier in known):
            keep_reading(run)
    if results:
        keep()
        print(f"{len(results)} of {len(planned)} runs are there already", flush=True)
    failed: list[str] = []
    began = time.monotonic()
    with workers.signals_as_exits():
        outcomes = workers.do_all(missing, carry_out, jobs, _may_begin)
        for ended, (run, outcome) in enumerate(outcomes, start=1):
            name = f"{run.arm}, seed {run.seed}"
            if isinstance(outcome, float):
                results.append(run.result())
                keep_reading(run)
                keep()
                said = f"{study.measure} {results[-1].score:.4f}, {outcome:.0f} s"
            else:
                why = run_logs.last_words(run.log) if outcome is None else workers.told_end(outcome)
                failed.append(f"{name} ({why}): see {run.log}")
                said = f"failed ({why})"
            print(
                f"[{len(planned) - len(missing) + ended}/{len(planned)}] {name}: {said}, "
                f"{minutes_left(began, ended, len(missing))}",
                flush=True,
            )
    return results, failed


def minutes_left(began: float, ended: int, tasks: int) -> str:
    """What is left of so many tasks, at the pace of those that ended since `began`."""
    left = (time.monotonic() - began) / ended * (tasks - ended)
    return f"{left / 60:.0f} min left"


def _may_begin(run: Run, running: Sequence[Run]) -> bool:
    """Whether nobody else is training the stage 1 that the run starts from."""
    stage1 = run.stage1
    taken = stage1 is not None and stage1 in [other.stage1 for other in running]
    return not taken or (stage1 is not None and runs.is_finished(stage1))


def carry_out(run: Run) -> float | None:
    """Trains what is not finished of a run, and scores it: seconds, or None if that failed.

    What it says goes into its log, an error too.
    """
    began = time.monotonic()
    run.log.parent.mkdir(parents=True, exist_ok=True)
    with run_logs.output_in(run.log):
        quiet.import_tensorflow()
        from sitn_tf.training.signals import STOPPED_STATUS, StoppedError

        try:
            _train_and_score(run)
        except StoppedError:
            print(f"stopped; {run.log.parent} is saved: give the same command again to continue")
            sys.exit(STOPPED_STATUS)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            return None
        except Exception:
            traceback.print_exc()
            return None
        finally:
            _forget_graphs()
    return time.monotonic() - began


def _train_and_score(run: Run) -> None:
    study, init = run.study, runs.NO_INIT
    if run.stage1 is not None:
        print(f"stage 1: {run.stage1}", flush=True)
        init = str(run.stage1)
        if not runs.is_finished(run.stage1):
            of_stage1 = config.for_stage1(run.config)
            train.train(schema.STAGE1, of_stage1, study.data_dir, run.stage1)
            _forget_graphs()
    if study.stage == "1":
        return
    if not runs.is_finished(run.stage2):
        train.train(schema.STAGE2, run.config, study.data_dir, run.stage2, init)
        _forget_graphs()
    if not run.is_scored():
        keep = study.keep_predictions
        evaluate.evaluate_run(run.stage2, split=study.split, keep_predictions=keep)


def _forget_graphs() -> None:
    """Frees what TensorFlow keeps of a model that is gone."""
    import tf_keras

    tf_keras.backend.clear_session()
    # Graphs and the functions that they call know each other.
    gc.collect()


def _metrics(run_dir: pathlib.Path) -> dict[str, dict[str, float]]:
    return runs.read_json(run_dir / runs.METRICS_FILE, {})


def _seconds(run_dir: pathlib.Path) -> float:
    history = runs.read_json(run_dir / runs.HISTORY_FILE, [])
    return float(sum(entry.get("seconds", 0.0) for entry in history))


def _lost_seconds(run_dir: pathlib.Path) -> dict[str, float]:
    """Seconds of the starts that lost to the run's in a race, if there was one."""
    raced = runs.read_json(run_dir / runs.RACE_FILE, None)
    if raced is None:
        return {}
    return {RACE: raced["seconds"] - raced["starts"][raced["winner"]]["seconds"]}


def _parameters(run_dir: pathlib.Path, frozen: bool) -> int:
    """Numbers that are trained, from the run's list of `name [shape]` of its variables.

    Args:
      frozen: whether what stage 1 has trained is left as it is.
    """
    listed = runs.read_json(run_dir / runs.INITIALIZATION_FILE, {})
    started = ("restored_in_part", "untrained", "fresh", *(() if frozen else ("restored",)))
    shapes = [json.loads(v[v.rindex("[") :]) for how in started for v in listed.get(how, [])]
    return sum(math.prod(shape) for shape in shapes)
