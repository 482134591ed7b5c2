"""Trains the arms of a study over seeds: a data set directory → a table of differences and a page.

    python -m sitn_tf.experiments --study=transfer --data_dir=DATASET --workdir=STUDY

Each arm and seed is a run of its own, `STUDY/<arm>/<seed>/stage2`, with the very weights of
`python -m sitn_tf.train`; arms that differ only in what comes after stage 1 start from one in
`STUDY/stage1`. `--jobs=2` trains two at a time. The same command continues an interrupted study:
finished runs are kept. `--trials=20` searches each arm's settings on validation data before the
first seed (studies/search.py). `--labels=0.02,0.1,1` trains each arm with these shares of stage 2's
training requests (studies/learning_curve.py). `--split=validation` (the default) is for choosing
settings; give `--split=test` once, when nothing is left to choose.
"""

import pathlib

from absl import flags

from sitn_tf import cli, locks, schema
from sitn_tf.errors import InputError
from sitn_tf.pages import documents, markdown
from sitn_tf.pages.page import Section
from sitn_tf.studies import figure3, search
from sitn_tf.studies.catalogue import STUDIES, read_study
from sitn_tf.studies.learning_curve import LearningCurve, read_shares
from sitn_tf.studies.page import of_study
from sitn_tf.studies.runs import Study, run_study

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Parent of the study's runs.", flag_values=FLAGS)
_STUDY = flags.DEFINE_string(
    "study", "transfer", f"{', '.join(STUDIES)}, or a JSON file of arms.", flag_values=FLAGS
)
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds 0, 1, … of each arm.", 1, flag_values=FLAGS)
_JOBS = flags.DEFINE_integer(
    "jobs", 1, "Runs at a time, which share the cores.", 1, flag_values=FLAGS
)
_TRIALS = flags.DEFINE_integer(
    "trials", 0, "Settings that are tried of each arm before its seeds.", 0, flag_values=FLAGS
)
_LABELS = flags.DEFINE_list(
    "labels", [], "Shares of stage 2's training requests: each arm with each.", flag_values=FLAGS
)
_ARMS = flags.DEFINE_list("arms", [], "Only these arms of the study.", flag_values=FLAGS)
_SPLIT = flags.DEFINE_string("split", schema.VALIDATION, "Split that is scored.", flag_values=FLAGS)
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


def main(_: list[str]) -> None:
    """Runs what is missing, and shows the table."""
    data_dir = cli.require(FLAGS, "data_dir")
    workdir = pathlib.Path(cli.require(FLAGS, "workdir"))
    arms = read_study(_STUDY.value, _ARMS.value)
    pictured = _STUDY.value == figure3.NAME
    if pictured:
        figure3.check_extras()
    stage = "1" if pictured else _STAGE.value
    curve = None
    if _LABELS.value:
        if stage == "1":
            raise InputError(
                f"labels={','.join(_LABELS.value)} are of stage 2, which stage=1 has not"
            )
        curve = LearningCurve(arms, read_shares(_LABELS.value))
        arms = curve.every_arm
    if stage == "1":
        arms = {name: arm for name, arm in arms.items() if arm.pretrain}
    study = Study(
        data_dir=data_dir,
        workdir=workdir,
        arms=arms,
        seeds=_SEEDS.value,
        stage=stage,
        split=_SPLIT.value,
        preset=_PRESET.value,
        settings=_SET.value,
        # Of a file the name alone, so that a study is the same from wherever it is named.
        name=pathlib.Path(_STUDY.value).stem,
    )
    with locks.held(locks.beside(workdir), f"workdir={workdir}"):
        _carry_out(study, pictured, curve)


def _carry_out(study: Study, pictured: bool, curve: LearningCurve | None) -> None:
    """Runs what is missing and writes what all came to."""
    searched: dict[str, search.Best] = {}
    if _TRIALS.value:
        study, searched = search.tune(study, _TRIALS.value, _JOBS.value)
    results, failed = run_study(study, _JOBS.value)
    more: list[Section] = []
    if pictured and results:
        more.append(figure3.write(study))
        print(f"wrote {study.workdir / figure3.NAME}.json")
    if searched:
        more.append(search.section(searched, study.raced))
    command = cli.command(FLAGS, "sitn_tf.experiments")
    if results:
        content = of_study(study, results, command, more, curve)
        title, asked, sections, _ = content
        shown = len(curve.shares) + 1 if curve else 1
        print(markdown.document(title, asked, sections[: shown + 1 + len(more)]))
        files = documents.write(content, study.results_file.with_suffix(""))
        print(f"wrote {study.results_file}, {files[0].name} and {files[1].name}")
    if failed:
        raise InputError("; ".join(failed))
    if study.stage == "2" and study.split != schema.TEST:
        print("next: the same with --split=test, when nothing is left to choose")


if __name__ == "__main__":
    cli.run(main, FLAGS)
