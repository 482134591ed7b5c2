"""Scores a split with trained runs: run directories → metrics.json and a table.

    python -m sitn_tf.evaluate --run_dir=RUN/stage2 [--run_dir=OTHER/stage2 ...]

With --keep_predictions each run also gets predictions-<split>.npz, which `sitn_tf.report` compares.
Beside the runs the table has item popularity in the training period and, where the log gives
its own score of each candidate, that score (on synthetic logs: the best possible).
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

from sitn_tf import cli, quiet, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, metrics
from sitn_tf.item_tables import ItemTable

FLAGS = flags.FlagValues()
_RUN_DIRS = flags.DEFINE_multi_string("run_dir", [], "A stage-2 run directory.", flag_values=FLAGS)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Data set directory; that of the run if not given.", flag_values=FLAGS
)
_SPLIT = flags.DEFINE_string("split", schema.TEST, "Split to score.", flag_values=FLAGS)
_KEEP = flags.DEFINE_bool(
    "keep_predictions",
    False,
    "Write what each run says of every candidate, into the run.",
    flag_values=FLAGS,
)

COLUMNS = ("auc", *metrics.TITLES)

Row = dict[str, float]


def main(_: list[str]) -> None:
    """Evaluates every run, writes into its metrics.json and prints one table."""
    if not _RUN_DIRS.value:
        raise InputError("--run_dir is missing: name the stage-2 run to evaluate")
    quiet.import_tensorflow()
    rows = evaluate(_RUN_DIRS.value, _DATA_DIR.value, _SPLIT.value, _KEEP.value)
    print(table(rows, f"{_SPLIT.value} split"))
    for line in dict.fromkeys(map(_of_unclicked, rows.values())):
        print(line, end="")
    for name, row in rows.items():
        print(_of_popularity(name, row), end="")
    for run_dir in _RUN_DIRS.value:
        kept = f" and predictions-{_SPLIT.value}.npz" if _KEEP.value else ""
        print(f"wrote {run_dir}/metrics.json{kept}")
    if len(_RUN_DIRS.value) > 1:
        compared = [f"--run_dir={run_dir}" for run_dir in _RUN_DIRS.value]
        print("next:", cli.shell("sitn_tf.report", *compared, f"--split={_SPLIT.value}"))
    exported = f"--run_dir={_RUN_DIRS.value[0]}"
    print("next:", cli.shell("export.export_model", exported, "--output=SERVABLE"))


def evaluate(
    run_dirs: Sequence[str | pathlib.Path],
    data_dir: str | pathlib.Path | None = None,
    split: str = schema.TEST,
    keep_predictions: bool = False,
) -> dict[str, Row]:
    """Metrics of runs on a split, by run directory after the references; see `evaluate_run`.

    Raises:
      InputError: no such split, or runs whose numbers do not belong in one table.
    """
    check_split(split)
    check_one_data_set(run_dirs)
    rows: dict[str, Row] = {}
    for run_dir in run_dirs:
        references, row = evaluate_run(run_dir, data_dir, split, keep_predictions)
        rows = references | rows | {str(run_dir): row}
    return rows


def check_split(split: str) -> None:
    """Raises InputError unless stage 2 has such a split."""
    if split not in schema.STAGE2_SPLITS:
        raise InputError(f"split={split} is not one of: {', '.join(schema.STAGE2_SPLITS)}")


def check_one_data_set(run_dirs: Sequence[str | pathlib.Path]) -> None:
    """Raises InputError unless all are finished stage-2 runs of the same data set."""
    hashes = {}
    for run_dir in map(pathlib.Path, run_dirs):
        runs.check_finished(run_dir, schema.STAGE2)
        hashes[run_dir] = runs.read_info(run_dir).dataset_hash
        (first, expected), *_ = hashes.items()
        if hashes[run_dir] != expected:
            raise InputError(
                f"run_dir={run_dir} was trained on the data set {hashes[run_dir]}, {first} on "
                f"{expected}",
                "evaluate them apart",
            )


def evaluate_run(
    run_dir: str | pathlib.Path,
    data_dir: str | pathlib.Path | None = None,
    split: str = schema.TEST,
    keep_predictions: bool = False,
) -> tuple[dict[str, Row], Row]:
    """Metrics of one run on a split, and of the references on the same candidates.

    Writes them into the run's metrics.json.

    Args:
      keep_predictions: whether `kept_predictions.write` keeps what the metrics are of.

    Raises:
      InputError: no finished run, or a data set other than the one it was trained on.
    """
    from sitn_tf import data, shards, trained_models
    from sitn_tf.evaluation.popularity import told_weight
    from sitn_tf.evaluation.predictions import EVALUATION_BATCH, predict

    run = trained_models.load_scorer(run_dir)
    where = data_dir or run.data_dir
    runs.read_its_manifest(run.run_dir, where)
    with shards.named(where, [schema.STAGE2]):
        requests = data.read_split(where, schema.STAGE2, split, EVALUATION_BATCH)
        scored = predict(run.scorer, requests)
    row = metrics.click_metrics(scored.label, scored.probability, scored.request)
    if keep_predictions:
        kept_predictions.write(scored, run.run_dir, split)
    row |= told_weight(run.scorer) | unclicked_shares(run.tables[schema.TARGET], scored.candidate)
    runs.write_metrics(run.run_dir, split, row)
    popularity = run.tables[schema.TARGET].count[scored.candidate].astype(np.float64)
    references = {"item popularity": _ranking_metrics(scored.label, popularity, scored.request)}
    if scored.logged_score is not None:
        logged = scored.logged_score.astype(np.float64)
        references["logged score"] = metrics.click_metrics(scored.label, logged, scored.request)
    return references, row


def unclicked_shares(items: ItemTable, candidates: np.ndarray) -> Row:
    """Shares of the candidates `[N]` of items without a click in training, by name.

    `unclicked` are all of them; of `unclicked_described` the run knows a side feature or a vector:
    what these say scores them. The rest have little but where their embedding began.
    """
    unclicked = items.count[candidates] == 0
    described = unclicked & items.described[candidates]
    return {"unclicked": float(unclicked.mean()), "unclicked_described": float(described.mean())}


def _of_unclicked(row: Row) -> str:
    if not row.get("unclicked"):
        return ""
    return (
        f"{row['unclicked']:.2%} of the candidates have no click in training: "
        f"{row['unclicked_described'] / row['unclicked']:.2%} of them are scored by what else is "
        "known of them\n"
    )


def _of_popularity(name: str, row: Row) -> str:
    if metrics.POPULARITY_WEIGHT not in row:
        return ""
    return (
        f"{name} adds {row[metrics.POPULARITY_WEIGHT]:.3f} log(1 + clicks in training) to logits\n"
    )


def _ranking_metrics(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> Row:
    return {"auc": metrics.auc(labels, scores), "gauc": metrics.gauc(labels, scores, groups)}


def table(rows: dict[str, Row], title: str = "", columns: Sequence[str] = COLUMNS) -> str:
    """Rows of metrics as aligned text; what a row does not have is shown as a dash."""
    width = max(len(name) for name in (*rows, title))
    lines = [title.ljust(width) + "".join(f"{column:>20}" for column in columns)]
    for name, row in rows.items():
        cells = (f"{row[column]:.4f}" if column in row else "-" for column in columns)
        lines.append(name.ljust(width) + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, FLAGS)
