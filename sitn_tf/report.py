"""What a run gains over others, overall and by slice: run directories → Markdown and HTML.

    python -m sitn_tf.report --run_dir=RUN/stage2 --run_dir=OTHER/stage2 [--run_dir=...]
    python -m sitn_tf.report --study_dir=STUDY

The first run is judged, such as SITN; each other is what it is compared with, such as SITN from
scratch or without the source histories. Gains in AUC have intervals by a paired bootstrap of users,
by length of both histories and by popularity of the clicked item, with an alarm where another run
is better. Runs whose evaluation kept its predictions are not scored again. Of a study SITN is
judged beside its rivals (evaluation/rivals.py), each the mean over seeds.
"""

import pathlib
from collections.abc import Callable, Sequence

from absl import flags

from sitn_tf import cli, config, evaluate, quiet, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import (
    kept_predictions,
    rivals,
    rivals_section,
    transfer,
    transfer_sections,
)
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.pages import documents
from sitn_tf.pages.page import Content, Section

FLAGS = flags.FlagValues()
_RUN_DIRS = flags.DEFINE_multi_string(
    "run_dir", [], "A stage-2 run directory; the first is judged.", flag_values=FLAGS
)
_STUDY_DIR = flags.DEFINE_string(
    "study_dir", None, "Workdir of a study, in place of run_dir.", flag_values=FLAGS
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data set directory; that of the run if not given.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string("split", schema.TEST, "Split to compare on.", flag_values=FLAGS)
_OUTPUT = flags.DEFINE_string(
    "output", "report", "Path of the two files, without .md and .html.", flag_values=FLAGS
)
_BRIEF = flags.DEFINE_bool(
    "brief", False, "Print what each section answers, not its tables.", flag_values=FLAGS
)


def main(_: list[str]) -> None:
    """Compares the runs, writes both files and prints the Markdown."""
    run_dirs = [pathlib.Path(run_dir) for run_dir in _RUN_DIRS.value]
    output = pathlib.Path(_OUTPUT.value)
    if not output.name or output.is_dir():
        raise InputError(
            f"output={output} is a directory",
            "give the path of the two files, without .md and .html",
        )
    if _STUDY_DIR.value and run_dirs:
        raise InputError(
            f"study_dir={_STUDY_DIR.value} and run_dir={run_dirs[0]} are both given",
            "give one of them",
        )
    where = _DATA_DIR.value
    if _STUDY_DIR.value:
        compared, over_rivals = compare_study(pathlib.Path(_STUDY_DIR.value), where, _SPLIT.value)
    else:
        compared = compare(run_dirs, where, _SPLIT.value)
        over_rivals = among_runs(compared)
    content = content_of(compared, output, over_rivals, _STUDY_DIR.value)
    files = documents.write(content, output)
    if _BRIEF.value:
        for section in content[2]:
            print(f"{section.title}: {section.answer}")
    else:
        print(files[0].read_text())
    print(f"wrote {files[0]} and {files[1]}")
    next_command = study_command(compared.judged, where)
    if next_command:
        print("next, whether other seeds say the same:", next_command)


def study_command(judged: transfer.Contender, data_dir: str | None) -> str | None:
    """Of a study of what stage 1 is worth to the judged run's model, over seeds.

    None where there are several seeds already, or the model has no stage 1.
    """
    asked = runs.read_asked(judged.runs[0].run_dir)
    if len(judged.runs) > 1 or not config.has_stage1(asked.model.name):
        return None
    preset, settings = config.as_settings(asked)
    words = ["--study=transfer", f"--data_dir={data_dir or judged.info.data_dir}"]
    words += ["--workdir=STUDY", "--seeds=5"]
    words += [] if preset == "default" else [f"--preset={preset}"]
    return cli.shell("sitn_tf.experiments", *words, *(f"--set={text}" for text in settings))


def compare(
    run_dirs: Sequence[pathlib.Path],
    data_dir: str | pathlib.Path | None = None,
    split: str = schema.TEST,
) -> transfer.Transfer:
    """`transfer.compare`, after scoring the runs whose predictions of the split are not kept.

    Raises:
      InputError: fewer than two runs, a run that is not finished, runs of different data sets, or
        no such split.
    """
    if len(run_dirs) < 2:
        given = f"run_dir={run_dirs[0]} is one run" if run_dirs else "no run_dir is given"
        raise InputError(
            given, "name the run that is judged and at least one that it is compared with"
        )
    evaluate.check_split(split)
    evaluate.check_one_data_set(run_dirs)
    transfer.short_names(run_dirs)
    return transfer.compare(run_dirs, split, _reader(data_dir))


def compare_study(
    study_dir: pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
    split: str = schema.TEST,
) -> tuple[transfer.Transfer, Section | None]:
    """SITN's best arm of a study beside its rivals, over the seeds that all have.

    Raises:
      InputError: no finished run of SITN, or no other model, or runs that have not scored the
        split: a report is not to be the first to read the test data.
    """
    evaluate.check_split(split)
    trained = rivals.of_study(study_dir)
    judged = rivals.judged_of(trained)
    others = [one for one in trained if one is not judged]
    picked = list({one.name: one for one in rivals.rivals(judged, others).values()}.values())
    if not picked:
        raise InputError(
            f"study_dir={study_dir} has nothing to compare {judged.name} with",
            "give a study that has other models, such as table2",
        )
    seeds = rivals.shared_seeds([judged, *picked])
    run_dirs = {one.name: [one.run_dirs[seed] for seed in seeds] for one in (judged, *picked)}
    every = [run_dir for dirs in run_dirs.values() for run_dir in dirs]
    evaluate.check_one_data_set(every)
    for run_dir in every:
        if split not in runs.read_json(run_dir / runs.METRICS_FILE, {}):
            raise InputError(
                f"{run_dir} has not scored the {split} split",
                f"give --split={schema.VALIDATION}, or first the study's command with "
                f"--split={split}, which keeps a record of it",
            )
    compared = transfer.compare_models(run_dirs, split, _reader(data_dir))
    return compared, rivals_section.section(compared, judged, others)


def among_runs(compared: transfer.Transfer) -> Section | None:
    """The rivals among runs that are compared anyhow."""
    judged, *others = [
        rivals.read_trained(model.name, [run.run_dir for run in model.runs])
        for model in compared.contenders
    ]
    return rivals_section.section(compared, judged, others)


def _reader(data_dir: str | pathlib.Path | None) -> Callable[[pathlib.Path, str], Predictions]:
    """Of predictions that are kept, or else are from then on."""

    def read(run_dir: pathlib.Path, split: str) -> Predictions:
        try:
            return kept_predictions.read(run_dir, split)
        except InputError as missing:
            print(f"scoring {run_dir}: {missing.message}", flush=True)
            quiet.import_tensorflow()
            evaluate.evaluate_run(run_dir, data_dir, split, keep_predictions=True)
            return kept_predictions.read(run_dir, split)

    return read


def content_of(
    compared: transfer.Transfer,
    output: pathlib.Path,
    over_rivals: Section | None = None,
    study_dir: str | None = None,
) -> Content:
    """Of the report, whose command wrote to `output`.

    Args:
      over_rivals: a section of its own.
      study_dir: that the runs are of; None if they were named themselves.
    """
    given = [f"--study_dir={study_dir}"]
    if not study_dir:
        given = [f"--run_dir={run.run_dir}" for model in compared.contenders for run in model.runs]
    given += [f"--split={compared.split}", f"--output={output}"]
    command = cli.shell("sitn_tf.report", *given)
    return (
        transfer_sections.title(compared),
        transfer_sections.asked(compared),
        transfer_sections.sections(compared, [over_rivals] if over_rivals else []),
        transfer_sections.made_by(compared, command),
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
