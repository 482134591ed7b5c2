import dataclasses
import re
import shutil

import pytest

from sitn_tf import evaluate, report, runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions
from tests import commands
from tests.sitn_tf import compared_runs


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory):
    """A judged run and two others, the second of another model."""
    root = tmp_path_factory.mktemp("runs")
    pool = ("model.name=mean_pool", "seed=3")
    return [
        compared_runs.write(root / "a" / "stage2", compared_runs.scored(1.5, 1), (), "stage 1"),
        compared_runs.write(root / "b" / "stage2", compared_runs.scored(0.5, 2)),
        compared_runs.write(root / "c<d" / "stage2", compared_runs.scored(1.5, 3), pool),
    ]


def _flags(run_dirs):
    return [f"--run_dir={run_dir}" for run_dir in run_dirs]


def test_a_report_is_printed_and_written_twice(run_dirs, tmp_path, capsys):
    output = tmp_path / "new" / "gains.v2"
    commands.run_main(report, *_flags(run_dirs), f"--output={output}")
    printed = capsys.readouterr().out
    assert "scoring" not in printed
    text = output.with_name("gains.v2.md").read_text()
    assert printed.startswith(text)
    assert f"wrote {output}.md and {output}.html\nnext, whether other seeds" in printed
    assert text.startswith("# What a gains\n\nWhat does a gain over b and c<d on the test split")
    row = r"\| b \| 0\.\d{4} \| \+0\.\d{4} \(\+0\.\d{4} to \+0\.\d{4}\) \| 0\.0020 \| 0\.\d{4} \|"
    assert re.search(row, text)
    assert "which may be chance" in text
    assert "3 runs of seeds 0, 0 and 3" in text
    assert "model.name: sitn, mean_pool" in text
    page = output.with_name("gains.v2.html").read_text()
    assert page.count("<svg") == 7  # gains, three slicings, calibration, two of training
    assert "c<d" not in page
    assert "c&lt;d" in page


def test_a_brief_report_prints_the_answers(run_dirs, capsys, monkeypatch):
    monkeypatch.setattr(report, "write", lambda _, output: (output, output))
    commands.run_main(report, *_flags(run_dirs[:2]), "--brief")
    printed = capsys.readouterr().out
    assert "Where it hurts: No slice is hurt" in printed
    assert "|" not in printed


def test_only_runs_without_fitting_predictions_are_scored(run_dirs, tmp_path, capsys, monkeypatch):
    other = shutil.copytree(run_dirs[1], tmp_path / "other")
    kept_predictions.path(other, schema.TEST).write_bytes(b"")
    asked = []

    def score(run_dir, data_dir, split, keep_predictions):
        asked.append((run_dir, data_dir, split, keep_predictions))
        kept_predictions.write(compared_runs.scored(0.5, 2), run_dir, split)

    monkeypatch.setattr(evaluate, "evaluate_run", score)
    monkeypatch.setattr(report.quiet, "import_tensorflow", lambda: None)
    report.compare([run_dirs[0], other], "there")
    assert asked == [(other, "there", schema.TEST, True)]
    assert f"scoring {other}: {other}/predictions-test.npz can't be read" in capsys.readouterr().out


def test_errors_name_the_remedy(run_dirs, tmp_path):
    def refused(match, *given):
        with pytest.raises(InputError, match=match):
            commands.run_main(report, f"--output={tmp_path / 'r'}", *given)

    judged, other, _ = _flags(run_dirs)
    refused("no run_dir is given: name the run that is judged and at least one")
    refused(f"{judged} is one run: name the run that is judged", judged)
    refused("is given twice: name each run once", judged, judged)
    refused("--split=dev is not one of: train, validation, test", judged, other, "--split=dev")
    refused("nowhere holds no run of stage 2: train one", judged, "--run_dir=nowhere")
    refused(r"--output=\. is a directory: give the path of the two files", "--output=.")
    run_dir = shutil.copytree(run_dirs[1], tmp_path / "run")
    (run_dir / runs.HISTORY_FILE).unlink()
    refused(r"history\.json is damaged \(missing\)", judged, f"--run_dir={run_dir}")
    info = dataclasses.replace(runs.read_info(run_dir), dataset_hash="d2")
    whole_files.write_json(run_dir / runs.RUN_FILE, dataclasses.asdict(info))
    refused(r"was trained on the data set d2, .* on d1: ", judged, f"--run_dir={run_dir}")
    (run_dir / runs.METRICS_FILE).unlink()
    refused("holds an unfinished run: give its command again", judged, f"--run_dir={run_dir}")
    assert not list(tmp_path.glob("r.*"))
