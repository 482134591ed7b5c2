import dataclasses
import re
import shutil

import pytest

from sitn_tf import evaluate, report, runs, schema, whole_files
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, transfer
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


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory):
    """Two seeds of SITN, itself from scratch, and three models; the test split says otherwise."""
    root = tmp_path_factory.mktemp("study")
    arms = {
        "sitn": ((), "stage 1", 0.80, 1.5),
        "worse_sitn": ((), "stage 1", 0.70, 1.9),
        "from_scratch": ((), runs.NO_INIT, 0.75, 1.0),
        "din": (("model.name=din",), runs.NO_INIT, 0.72, 0.8),
        "fm": (("model.name=fm",), runs.NO_INIT, 0.71, 1.9),
        "semi": (("model.name=mean_pool",), runs.NO_INIT, 0.74, 0.9),
    }
    for number, (arm, (settings, init, auc, signal)) in enumerate(arms.items()):
        for seed in range(1 if arm == "worse_sitn" else 2):
            compared_runs.write(
                root / arm / str(seed) / "stage2",
                compared_runs.scored(signal, 10 * number + seed),
                (*settings, f"seed={seed}"),
                init,
                validation_auc=auc + seed / 1000,
            )
    return root


def test_a_study_is_judged_by_sitn_and_its_rivals_on_validation_data(study_dir, tmp_path):
    """Din is above fm and mean pooling above both on validation data, whatever the test says."""
    commands.run_main(report, f"--study_dir={study_dir}", f"--output={tmp_path / 'r'}")
    text = (tmp_path / "r.md").read_text()
    assert text.startswith(
        "# What sitn gains\n\nWhat does sitn gain over from_scratch, din and semi"
    )
    [answer] = re.findall(r"## Over its rivals\n\n(.*)", text)
    gain = r"\+0\.\d{4} \(\+0\.\d{4} to \+0\.\d{4}\)"
    assert re.search(
        rf"sitn gains {gain} over itself without stage 1, from_scratch; {gain} over the best "
        rf"single-domain model, din; {gain} over the best baseline, semi\.", answer
    )  # fmt: skip
    assert "| sitn | sitn | yes | 2 | 0.8005 | judged |" in text
    assert "| worse_sitn | sitn | yes | 1 | 0.7000 |  |" in text
    assert "| din | din | no | 2 | 0.7205 | the best single-domain model |" in text
    assert "| fm | fm | no | 2 | 0.7105 |  |" in text
    # Of both seeds: mean and spread of what the runs' own metrics say.
    told = [
        runs.read_json(study_dir / "sitn" / seed / "stage2" / runs.METRICS_FILE, None)["test"][
            "auc"
        ]
        for seed in "01"
    ]
    spread = abs(told[0] - told[1]) / 2**0.5
    assert f"| sitn | {sum(told) / 2:.4f} ± {spread:.4f} |" in text
    assert "8 runs of the seeds 0 and 1" in text
    assert "gain over semi" in text
    assert f"--study_dir={study_dir}" in text


def test_a_report_is_not_the_first_to_read_the_test_split(study_dir, tmp_path):
    copy = shutil.copytree(study_dir, tmp_path / "study")
    run_dir = copy / "semi/1/stage2"
    whole_files.write_json(run_dir / runs.METRICS_FILE, {"validation": {"auc": 0.74}})

    def refused(match, *flags):
        with pytest.raises(InputError, match=match):
            commands.run_main(report, f"--output={tmp_path / 'r'}", *flags)

    refused(
        r"semi/1/stage2 has not scored the test split: give --split=validation, or first the "
        "study's command with --split=test", f"--study_dir={copy}"
    )  # fmt: skip
    refused("are both given: give one of them", f"--study_dir={copy}", f"--run_dir={run_dir}")
    refused("holds no finished run: give the workdir of", f"--study_dir={tmp_path / 'nowhere'}")
    shutil.rmtree(copy / "sitn/0")
    shutil.rmtree(copy / "din/1")
    refused("sitn, .*din, semi have no seed in common: train each", f"--study_dir={copy}")
    for arm in ("sitn", "worse_sitn"):
        shutil.rmtree(copy / arm)
    refused("none of .* is SITN after a stage 1: name the run", f"--study_dir={copy}")


def test_the_next_command_is_of_the_judged_runs_own_settings(run_dirs, tmp_path):
    scored = compared_runs.scored(1.0, 1)

    def told(*of_seeds):
        compared = [transfer._compared_run(run_dir, "test", scored) for run_dir in of_seeds]
        return report.study_command(transfer.Contender("judged", compared), "d s")

    settings = ("encoder.heads=4", "stage2.race_steps=9", "seed=4")
    judged = compared_runs.write(tmp_path / "stage2", scored, settings, "stage 1")
    assert told(judged) == (
        "python -m sitn_tf.experiments --study=transfer '--data_dir=d s' --workdir=STUDY --seeds=5 "
        "--preset=tiny --set=encoder.heads=4 --set=stage2.race_steps=9"
    )
    assert told(judged, judged) is None, "there are seeds already"
    assert told(run_dirs[2]) is None, "mean pooling has no stage 1"


def test_a_brief_report_prints_the_answers(run_dirs, capsys, monkeypatch):
    monkeypatch.setattr(report.documents, "write", lambda _, output: (output, output))
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
