"""Run directory → version directory → verified: the commands, and what they refuse."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from export import (
    client,
    export_model,
    exporting,
    golden,
    native,
    requests,
    signatures,
    vectors,
    verify,
    version_files,
    versions,
)
from export.exporting import export
from export.metadata import summary
from export.options import ExportOptions
from sitn_tf import runs, schema, whole_files
from sitn_tf.errors import InputError
from tests.commands import run_main
from tests.export.small_run import write_small_run
from tests.small_dataset import write_small_dataset

FEW = ExportOptions(goldens=64)


def run_command(module, *arguments):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )


def verified(version, run_dir=None):
    with native.Session(version) as session:
        report = verify.replay_goldens(session, version)
    return all(difference.passes for difference in report.values())


def test_an_export_answers_without_its_run_and_data(servable, run_dir):
    """In a fresh process, and with what it was made from out of the way."""
    away = run_dir.parent.with_name("away")
    run_dir.parent.rename(away)
    try:
        done = run_command("export.verify", f"--servable={servable / '1'}")
    finally:
        away.rename(run_dir.parent)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "score, 1024 requests against the trained model: max abs difference" in done.stdout
    assert "FAILED" not in done.stdout
    assert "warm-up: 35 requests answered" in done.stdout
    assert "\n  ctr 0." in done.stdout
    assert "title of t" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("next: docker run")


def test_verify_with_the_run_scores_its_model_again(servable, run_dir):
    assert verify.difference_from_run(run_dir, servable / "1").passes


def test_verify_sees_another_model(servable, other_servable, tmp_path, capsys):
    """The check can fail: golden scores of a model with other weights."""
    broken = shutil.copytree(servable / "1", tmp_path / "1")
    shutil.copy(other_servable / "1" / golden.FILE, broken / golden.FILE)
    version_files.write_checksums(broken)
    assert run_main(verify, f"--servable={broken}") == verify.FAILED
    assert "log-odds  FAILED" in capsys.readouterr().out


def test_a_model_without_its_variables_is_damaged(servable, tmp_path):
    broken = shutil.copytree(servable / "1", tmp_path / "1")
    shutil.rmtree(broken / "variables")
    with pytest.raises(InputError, match=r"is damaged: variables/variables\S+ is missing"):
        run_main(verify, f"--servable={broken}")
    version_files.write_checksums(broken)
    with pytest.raises(InputError, match="is damaged, it fails a golden request"):
        run_main(verify, f"--servable={broken}")


def test_damaged_goldens_and_metadata_are_named(servable, tmp_path):
    broken = shutil.copytree(servable / "1", tmp_path / "1")
    (broken / golden.FILE).write_text('{"source_history": [')
    with pytest.raises(InputError, match=r"/1 is damaged, assets.extra/golden.jsonl cannot be"):
        golden.read(broken)
    with pytest.raises(InputError, match=r"/1/nope is not a directory: name a version"):
        golden.read(broken / "nope")
    (broken / version_files.METADATA_FILE).write_text("{")
    with pytest.raises(InputError, match=r"/1 is damaged, assets.extra/metadata.json cannot be"):
        version_files.read_metadata(broken)
    with pytest.raises(InputError, match="/9 is not a directory: name a version"):
        version_files.read_metadata(tmp_path / "9")


def test_goldens_cover_what_serving_meets(servable):
    asked = [g.request for g in golden.read(servable / "1")]
    assert len(asked) >= 1000
    longest = json.loads((servable / "1" / version_files.METADATA_FILE).read_text())["options"][
        "max_history"
    ]
    assert any(not r.source_history for r in asked)
    assert any(not r.target_history for r in asked)
    assert any(len(r.source_history) > longest for r in asked)
    assert any("unknown item" in item for r in asked for item in r.candidates)


def test_metadata_says_what_was_exported(servable, run_dir):
    metadata = version_files.read_metadata(servable / "1")
    vocabulary = run_dir / schema.vocabulary_path(schema.TARGET, schema.ITEM)
    assert metadata["vocabularies"]["target"]["items"] == len(vocabulary.read_text().split())
    assert len(metadata["vocabularies"]["target"]["sha256"]) == 64
    assert metadata["schema_hash"] == schema.schema_hash()
    assert metadata["run"]["run_dir"] == str(run_dir)
    assert metadata["metrics"] == runs.read_json(run_dir / runs.METRICS_FILE, None)
    assert metadata["signatures"]["score"]["inputs"]["candidates"] == {
        "dtype": "string",
        "shape": [None, None],
    }
    assert metadata["measured"]["auc_served"] == pytest.approx(
        metadata["measured"]["auc_trained"], abs=1e-9
    )
    assert (servable / "1/assets.extra/reliability.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(
    "settings",
    [
        ["model.use_source=false"],
        ["items.id_embedding=quotient_remainder", "items.id_rows=4"],
        pytest.param(["items.id_embedding=hash", "items.id_rows=4"], marks=pytest.mark.slow),
        pytest.param(["sitn.target_attention=din"], marks=pytest.mark.slow),
        pytest.param(["encoder.blocks=2", "encoder.positions=false"], marks=pytest.mark.slow),
        pytest.param(["encoder.residual=false", "mlp.products=false"], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_every_model_is_served_as_trained(tmp_path, settings):
    run_dir = write_small_run(tmp_path, *settings, measured=False)
    made, _ = export(run_dir, tmp_path / "servable", FEW)
    assert verified(made)


def test_an_existing_version_is_not_replaced(run_dir, servable):
    with pytest.raises(InputError, match="/1 exists: leave the version out for version 2"):
        export(run_dir, servable, version=1)


def test_a_failed_export_leaves_nothing(run_dir, tmp_path, monkeypatch):
    def save(_, directory):
        (directory / "saved_model.pb").write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(signatures.Servable, "save", save)
    with pytest.raises(OSError, match="disk full"):
        export(run_dir, tmp_path / "servable")
    assert not (tmp_path / "servable").exists()


def test_runs_that_cannot_be_exported(run_dir, tmp_path):
    with pytest.raises(InputError, match=r"missing is not a directory: train a run with"):
        export(tmp_path / "missing", tmp_path / "servable")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty holds no run of stage 2: train one"):
        export(tmp_path / "empty", tmp_path / "servable")
    stage1 = shutil.copytree(run_dir, tmp_path / "stage1")
    info = dataclasses.replace(runs.read_info(run_dir), stage="stage1")
    whole_files.write_json(stage1 / runs.RUN_FILE, dataclasses.asdict(info))
    with pytest.raises(InputError, match="holds a run of stage1, not of stage2"):
        export(stage1, tmp_path / "servable")
    assert not (tmp_path / "servable").exists()


def test_a_checkpoint_of_another_model_is_refused(run_dir, tmp_path):
    other = shutil.copytree(run_dir, tmp_path / "stage2")
    config = runs.read_json(other / runs.CONFIG_FILE, None)
    config["mlp"]["widths"] = [17]
    whole_files.write_json(other / runs.CONFIG_FILE, config)
    with pytest.raises(InputError, match=r"best/ckpt-\d+ does not load \(.*of another model than"):
        export(other, tmp_path / "servable", FEW)


def test_differences_of_tiny_probabilities_show_in_log_odds():
    # ctr of e^-14 = 8e-7 and e^-13.5: closer than the tolerance, and half of log-odds apart.
    found = ([np.exp([-14.0])], [np.array([-14.0])])
    difference = golden.compare(found, [(-13.5,)])
    assert difference.ctr < golden.CTR_TOLERANCE
    assert difference.logit == 0.5
    assert not difference.passes
    not_a_number = ([np.array([0.5, np.nan])], [np.array([0.0, np.nan])])
    assert not golden.compare(not_a_number, [(0.0, 0.0)]).passes


def test_another_data_set_is_refused(run_dir, tmp_path):
    other = write_small_dataset(tmp_path / "other", dataset_hash="another")
    with pytest.raises(InputError, match=r"other is the data set another, .* was trained on small"):
        export(run_dir, tmp_path / "servable", ExportOptions(data_dir=other))


def test_a_damaged_data_set_is_none_to_do_without(run_dir, tmp_path):
    moved = shutil.copytree(run_dir, tmp_path / "stage2")
    told = runs.read_json(moved / runs.RUN_FILE, None) | {"data_dir": str(tmp_path / "data")}
    whole_files.write_json(moved / runs.RUN_FILE, told)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / schema.MANIFEST_FILE).write_text("{")
    with pytest.raises(InputError, match=r"data/manifest\.json is not a data set's manifest"):
        export(moved, tmp_path / "servable")
    (tmp_path / "data" / schema.MANIFEST_FILE).rename(tmp_path / "data" / "renamed")
    with pytest.raises(InputError, match=r"data holds no manifest\.json, so it is not a finished"):
        export(moved, tmp_path / "servable")


def test_options_are_checked():
    with pytest.raises(InputError, match="tables=int4 is not one of: float32, float16, int8"):
        ExportOptions(tables="int4")
    with pytest.raises(InputError, match="calibrate=beta is not one of: none, platt, isotonic"):
        ExportOptions(calibrate="beta")


def test_missing_flags_are_named():
    for module, message in (
        (export_model, "--run_dir is missing: give --run_dir=RUN/stage2"),
        (verify, "--servable is missing: name a version"),
        (versions, "--servable is missing"),
        (client, "nothing to ask: give --candidates=a,b"),
        (vectors, "give --run_dir=RUN/stage1 --output=VECTORS"),
    ):
        with pytest.raises(InputError, match=message):
            run_main(module)


def test_the_same_export_is_not_written_twice(run_dir, servable, tmp_path, capsys):
    folder = shutil.copytree(servable, tmp_path / "servable")
    run_main(export_model, f"--run_dir={run_dir}", f"--output={folder}")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{folder / '1'} is the same already: nothing written (--force writes another)",
        f"next: python -m export.verify --servable={folder / '1'}",
    ]
    assert [p.name for p in folder.iterdir()] == ["1"]


def test_what_makes_a_version_another_one(servable, tmp_path):
    made = shutil.copytree(servable / "1", tmp_path / "made")
    metadata = version_files.read_metadata(made)

    def same(**changes):
        (made / version_files.METADATA_FILE).write_text(json.dumps({**metadata, **changes}))
        return exporting.same_as_newest(made, servable) == servable / "1"

    assert same(created="later", drift={"version": 1})
    # Golden requests need not touch every item; the fingerprint of the weights does.
    assert not same(encoder=metadata["encoder"] + 1)
    assert not same(calibration={"shift": -1.0})
    (made / golden.FILE).write_text("other scores")
    assert not same()
    (made / golden.FILE).unlink()
    assert not same()
    assert exporting.same_as_newest(made, tmp_path / "no versions") is None


def test_no_command_loads_tensorflow_before_it_speaks():
    """Its chatter is dropped by `main`, which comes after the imports."""
    modules = "client, export_model, score_batch, vectors, verify, versions"
    program = f"import sys; from export import {modules}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_commands_count_on_keep_and_list(run_dir, servable, tmp_path, capsys):
    folder = tmp_path / "servable"
    shutil.copytree(servable / "1", folder / "7")
    run_main(export_model, f"--run_dir={run_dir}", f"--output={folder}", "--force", "--keep=1")
    said = capsys.readouterr().out.splitlines()
    assert "drift from version 7 on its golden requests: 0.0000 of log-odds" in said[-4]
    assert said[-3:] == [
        f"wrote {folder / '8'}",
        "removed versions 7",
        f"next: python -m export.verify --servable={folder / '8'}",
    ]
    assert verify.resolve(folder) == folder / "8"
    assert [p.name for p in folder.iterdir()] == ["8"]
    run_main(versions, f"--servable={folder}")
    assert capsys.readouterr().out.startswith("8  20")


@pytest.mark.parametrize(
    ("tables", "bound"),
    [pytest.param("float16", 5e-3, marks=pytest.mark.slow), ("int8", 5e-2)],
)
def test_quantised_tables_cost_little_and_are_verified(run_dir, tmp_path, tables, bound):
    made, metadata = export(
        run_dir, tmp_path / "servable", ExportOptions(tables=tables, goldens=64)
    )
    assert 0 < metadata["golden"]["max_difference"]["ctr"] < bound
    assert verified(made)
    text = summary(metadata)
    assert f"with {tables} tables" in text
    assert "cost " in text


def test_unknown_items_score_alike_in_every_version(servable, session):
    asked = requests.Request(("no such item",), (), ("neither", "nor"))
    found = session.run("score", requests.score_inputs([asked]))["ctr"][0]
    assert found[0] == found[1]
    assert 0 < found[0] < 1
    np.testing.assert_array_equal(np.isfinite(found), True)


def test_a_data_set_without_test_requests_is_not_measured(run_dir):
    """As of --test_fraction=0, where all requests but the validation's train."""
    manifest = runs.read_manifest(run_dir)
    data_dir = pathlib.Path("data")
    assert exporting._test_requests(manifest, data_dir) == data_dir
    without = dataclasses.replace(manifest, records={"stage2": {"train": 9, "test": 0}})
    found = exporting._test_requests(without, data_dir)
    assert str(found) == "data has no requests in its test split"
    gone = InputError("it is gone")
    assert exporting._test_requests(manifest, gone) is gone
