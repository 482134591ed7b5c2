"""What a run gains over others, overall and by slice: run directories → Markdown and HTML.

    python -m sitn_tf.report --run_dir=RUN/stage2 --run_dir=OTHER/stage2 [--run_dir=...]

The first run is judged, such as SITN; each other is what it is compared with, such as SITN from
scratch or without the source histories. Gains in AUC have intervals by a paired bootstrap of users,
by length of both histories and by popularity of the clicked item, with an alarm where another run
is better. Runs whose evaluation kept its predictions are not scored again.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from sitn_tf import cli, evaluate, markdown, quiet, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, transfer, transfer_sections
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.page import Content, page

FLAGS = flags.FlagValues()
_RUN_DIRS = flags.DEFINE_multi_string(
    "run_dir", [], "A stage-2 run directory; the first is judged.", flag_values=FLAGS
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
    compared = compare(run_dirs, _DATA_DIR.value, _SPLIT.value)
    content = content_of(compared, output)
    files = write(content, output)
    if _BRIEF.value:
        for section in content[2]:
            print(f"{section.title}: {section.answer}")
    else:
        print(files[0].read_text())
    print(f"wrote {files[0]} and {files[1]}")
    where = f"--data_dir={_DATA_DIR.value or compared.judged.info.data_dir}"
    words = "--study=transfer", where, "--workdir=STUDY", "--seeds=5"
    print("next, whether other seeds say the same:", cli.shell("sitn_tf.experiments", *words))


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

    def read(run_dir: pathlib.Path, split: str) -> Predictions:
        try:
            return kept_predictions.read(run_dir, split)
        except InputError as missing:
            print(f"scoring {run_dir}: {missing.message}", flush=True)
            quiet.import_tensorflow()
            evaluate.evaluate_run(run_dir, data_dir, split, keep_predictions=True)
            return kept_predictions.read(run_dir, split)

    return transfer.compare(run_dirs, split, read)


def content_of(compared: transfer.Transfer, output: pathlib.Path) -> Content:
    """Of the report, whose command wrote to `output`."""
    given = [f"--run_dir={run.run_dir}" for run in compared.runs]
    given += [f"--split={compared.split}", f"--output={output}"]
    command = cli.shell("sitn_tf.report", *given)
    return (
        transfer_sections.title(compared),
        transfer_sections.asked(compared),
        transfer_sections.sections(compared),
        transfer_sections.made_by(compared, command),
    )


def write(content: Content, output: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes `<output>.md` and `<output>.html`, and returns their paths."""
    output.parent.mkdir(parents=True, exist_ok=True)
    files = output.with_name(f"{output.name}.md"), output.with_name(f"{output.name}.html")
    whole_files.write_text(files[0], markdown.document(*content))
    whole_files.write_text(files[1], page(*content))
    return files


if __name__ == "__main__":
    cli.run(main, FLAGS)
