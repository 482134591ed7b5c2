"""The settings of each arm, searched on validation data by Optuna's TPE before any seed is run.

<workdir>/search/<arm>/trials.json         every trial: its settings, and its AUC or why it failed
<workdir>/search/<arm>/best.json           the settings that the seeds are trained with
<workdir>/search/<arm>/<trial>/0/log.txt   what was said while it was trained

Each arm has the same number of trials with seed 0, the first with its defaults. What is suggested
depends on the trials before alone, so that an interrupted search goes on as if it had not been,
and equal studies try the same. Runs of trials are removed when they are told: the best settings are
trained again, as one of the seeds. An arm whose starts race (`arms.RACE`) takes the best of up to
three trainings in each trial, by the AUC that judges it; the others have one.
"""

import dataclasses
import math
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence

from sitn_tf import extras, runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.pages.page import Section, Table
from sitn_tf.studies import run_logs, workers
from sitn_tf.studies.arms import told_races
from sitn_tf.studies.runs import (
    OTHER_WORKDIR,
    Run,
    Study,
    carry_out,
    minutes_left,
    short_hash,
)
from sitn_tf.studies.search_spaces import Range, Space, defaults, space_of

FOLDER = "search"
TRIALS_FILE = "trials.json"
BEST_FILE = "best.json"

Values = Mapping[str, float | str]
"""Of fields `section.field`."""


@dataclasses.dataclass(frozen=True)
class Trial:
    """What came of some settings.

    Attributes:
      auc: on the validation split, None where it failed.
      failed: the words with which it did.
    """

    values: Values
    auc: float | None = None
    failed: str = ""

    @property
    def settings(self) -> tuple[str, ...]:
        return tuple(f"{field}={value}" for field, value in self.values.items())


@dataclasses.dataclass(frozen=True)
class Best:
    """What a search came to.

    Attributes:
      trials, failed: how many there were.
      trial: the best one's number, None where all failed.
      auc: its validation AUC.
      settings: its settings; none where all failed.
    """

    trials: int
    failed: int
    trial: int | None = None
    auc: float | None = None
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Search:
    """Of one arm of a study."""

    study: Study
    arm: str

    @property
    def folder(self) -> pathlib.Path:
        return self.study.workdir / FOLDER / self.arm

    @property
    def space(self) -> Space:
        arm = self.study.arms[self.arm]
        return space_of(arm, self.study.config(arm), tuple(self.study.settings))

    def trials(self) -> list[Trial]:
        """Those told so far.

        Raises:
          InputError: they are of other settings or data.
        """
        told = runs.read_json(self.folder / TRIALS_FILE, {"of": self._identity(), "trials": []})
        if told["of"] != self._identity():
            raise InputError(
                f"{self.folder} holds a search of other settings, spaces or data",
                OTHER_WORKDIR,
            )
        return [Trial(**trial) for trial in told["trials"]]

    def tell(self, trial: Trial) -> None:
        """Keeps a trial's outcome."""
        trials = [dataclasses.asdict(each) for each in (*self.trials(), trial)]
        self.folder.mkdir(parents=True, exist_ok=True)
        described = {"of": self._identity(), "trials": trials}
        whole_files.write_json(self.folder / TRIALS_FILE, described)

    def next_values(self) -> Values:
        """The defaults at first, then what the trials so far suggest."""
        told = self.trials()
        if not told:
            return defaults(self.space, self.study.config(self.study.arms[self.arm]))
        return suggest(self.space, told)

    def run(self, values: Values) -> Run:
        """The run of the next trial."""
        arm, number = self.study.arms[self.arm], str(len(self.trials()))
        of_trial = dataclasses.replace(arm, settings=(*arm.settings, *Trial(values).settings))
        alone = dataclasses.replace(
            self.study,
            workdir=self.folder,
            arms={number: of_trial},
            seeds=1,
            split=schema.VALIDATION,
            keep_predictions=False,
        )
        return alone.runs()[0]

    def _identity(self) -> str:
        arm = self.study.arms[self.arm]
        space = {field: dataclasses.asdict(values) for field, values in self.space.items()}
        dataset = schema.read_manifest(self.study.data_dir).dataset_hash
        return short_hash([dataset, arm.pretrain, self.study.config(arm).used("seed"), space])


@dataclasses.dataclass(frozen=True)
class Step:
    """The task of a worker: the next trial of a search.

    Attributes:
      last: whether it ends the search.
    """

    search: Search
    last: bool


def tune(study: Study, trials: int, jobs: int = 1) -> tuple[Study, dict[str, Best]]:
    """The study with each arm's best settings, and what its searches came to by arm.

    Args:
      trials: of each arm. Those that are there already are not run again.
      jobs: trials at a time, of different arms.

    Raises:
      InputError: Optuna is missing; seeds or a search of other settings lie there; nothing to judge
        by.
    """
    extras.check(f"trials={trials}", "studies", "optuna")
    if study.stage == "1":
        raise InputError(
            f"trials={trials}: a search judges by validation AUC, which stage=1 has not"
        )
    searches = [Search(study, arm) for arm in study.arms]
    for search in searches:
        defaults(search.space, study.config(study.arms[search.arm]))
    check_seeds(study, searches)
    steps = [
        Step(search, last=number == trials - 1)
        for number in range(trials)
        for search in searches
        if search.space and number >= len(search.trials())
    ]
    began = time.monotonic()
    with workers.signals_as_exits():
        outcomes = workers.do_all(steps, carry_out_step, jobs, _may_begin)
        for ended, (step, outcome) in enumerate(outcomes, start=1):
            search, trial = step.search, outcome
            if not isinstance(trial, Trial):
                trial = Trial(search.next_values(), failed=workers.told_end(outcome))
                search.tell(trial)
            came_to = f"failed ({trial.failed})" if trial.failed else f"AUC {trial.auc:.4f}"
            print(
                f"[{ended}/{len(steps)}] search of {search.arm}: validation {came_to}, "
                f"{minutes_left(began, ended, len(steps))}",
                flush=True,
            )
    best = {search.arm: best_of(search.trials()[:trials]) for search in searches}
    for search in searches:
        search.folder.mkdir(parents=True, exist_ok=True)
        whole_files.write_json(search.folder / BEST_FILE, dataclasses.asdict(best[search.arm]))
    arms = {
        name: dataclasses.replace(arm, settings=(*arm.settings, *best[name].settings))
        for name, arm in study.arms.items()
    }
    return dataclasses.replace(study, arms=arms), best


def check_seeds(study: Study, searches: Sequence[Search]) -> None:
    """Raises InputError where seeds lie whose settings no outcome of the searches can match."""
    spaces = {search.arm: search.space for search in searches}
    others = [
        f"{run.arm}/{run.seed} ({'; '.join(changed)})"
        for run in study.runs()
        if (changed := run.changed(but=spaces[run.arm]))
    ]
    if others:
        raise InputError(
            f"{study.workdir} holds other runs (there, here): {', '.join(others)}", OTHER_WORKDIR
        )


def _may_begin(step: Step, running: Sequence[Step]) -> bool:
    """Whether all earlier trials of the arm are told."""
    return step.search.arm not in [other.search.arm for other in running]


def carry_out_step(step: Step) -> Trial:
    """Trains the next trial of a search, and tells it what came of it."""
    search = step.search
    values = search.next_values()
    run = search.run(values)
    seconds = carry_out(run)
    auc = math.nan if seconds is None else run.result().score
    words = run_logs.last_words(run.log) if seconds is None else f"its AUC is {auc}"
    trial = Trial(values, auc) if math.isfinite(auc) else Trial(values, failed=words)
    search.tell(trial)
    for done in (run.stage2, runs.race_of(run.stage2)):
        shutil.rmtree(done, ignore_errors=True)
    if step.last:
        shutil.rmtree(search.folder / schema.STAGE1, ignore_errors=True)
    return trial


def suggest(space: Space, told: Sequence[Trial]) -> Values:
    """What TPE (Bergstra et al., NeurIPS 2011) tries next; its first ten are random.

    Args:
      told: trials so far; those that failed say nothing but their number, which is the seed.
    """
    import optuna
    from optuna import distributions

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread: dict[str, distributions.BaseDistribution] = {
        field: distributions.FloatDistribution(values.low, values.high, log=True)
        if isinstance(values, Range)
        else distributions.CategoricalDistribution(values.values)
        for field, values in space.items()
    }
    sampler = optuna.samplers.TPESampler(seed=len(told))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in told:
        if trial.auc is not None:
            values = dict(trial.values)
            study.add_trial(
                optuna.trial.create_trial(params=values, distributions=spread, value=trial.auc)
            )
    asked = study.ask(spread).params
    return {f: float(f"{v:.4g}") if isinstance(v, float) else v for f, v in asked.items()}


def best_of(trials: Sequence[Trial]) -> Best:
    """The highest AUC, of equal ones the first."""
    scored = {n: trial.auc for n, trial in enumerate(trials) if trial.auc is not None}
    failed = len(trials) - len(scored)
    if not scored:
        return Best(len(trials), failed)
    number = max(scored, key=scored.__getitem__)
    return Best(len(trials), failed, number, scored[number], trials[number].settings)


def section(best: Mapping[str, Best], raced: Sequence[str] = ()) -> Section:
    """What the search of each arm came to.

    Args:
      raced: names of the arms whose starts race, in each trial too.
    """
    titles = ["arm", "trials", "failed", "best trial", "its validation AUC", "settings"]
    rows = [
        [
            arm,
            str(found.trials),
            str(found.failed),
            "" if found.trial is None else str(found.trial),
            "" if found.auc is None else f"{found.auc:.4f}",
            " ".join(found.settings),
        ]
        for arm, found in best.items()
    ]
    trials = max(found.trials for found in best.values())
    answer = f"Settings are the best of {trials} trials of each arm on validation data, seed 0."
    told = [f"{told_races(raced, list(best))} It is the same for trials."] if raced else []
    return Section("Search", answer, [*told, Table("The best trial of each arm", titles, rows)])
