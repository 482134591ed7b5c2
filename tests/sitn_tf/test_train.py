"""Both stages on a small data set: files written, resumed, refused."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import (
    checkpoints,
    config,
    data,
    evaluate,
    runs,
    schema,
    train,
    trained_models,
    whole_files,
)
from sitn_tf.errors import InputError
from sitn_tf.evaluation import kept_predictions, metrics
from sitn_tf.evaluation.predictions import predict
from sitn_tf.item_tables import ItemTable
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.training import stage1, stage2
from tests import commands
from tests.sitn_tf.models.apart import encode_and_score
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.usefixtures("op_by_op")

PARAMETERS_OF_TINY = 2697


@pytest.fixture(scope="module")
def workdir(small, tmp_path_factory):
    """A directory in which both stages were trained."""
    workdir = tmp_path_factory.mktemp("run")
    for stage in ("1", "2"):
        _train(stage, small, workdir, "--preset=tiny")
    return workdir


def _train(stage, data_dir, workdir, *more):
    where = (f"--stage={stage}", f"--data_dir={data_dir}", f"--workdir={workdir}")
    commands.run_main(train, *where, *more)


def test_a_run_directory_says_everything(workdir, small):
    for stage in ("stage1", "stage2"):
        run_dir = workdir / stage
        assert runs.read_config(run_dir) == config.tiny()
        info = runs.read_info(run_dir)
        assert info.dataset_hash == "small"
        assert info.data_dir == str(small)
        assert info.versions["tensorflow"] == tf.__version__
        history = json.loads((run_dir / "history.json").read_text())
        metrics = json.loads((run_dir / "metrics.json").read_text())
        assert metrics["validation"] in history


@pytest.mark.parametrize("content", ["{", "[]", "", '{"seed": "1"}', '{"model": 3}'])
@pytest.mark.parametrize("name", [runs.CONFIG_FILE, runs.RUN_FILE])
def test_a_damaged_run_is_named(workdir, tmp_path, name, content):
    run_dir = shutil.copytree(workdir / "stage2", tmp_path / "stage2")
    (run_dir / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name} is damaged .*train again"):
        trained_models.load_scorer(run_dir)
    (run_dir / runs.CONFIG_FILE).unlink()
    with pytest.raises(InputError, match=r"config\.json is damaged \(missing\)"):
        runs.read_config(run_dir)


def test_stage_2_starts_from_stage_1(workdir):
    described = json.loads((workdir / "stage2" / runs.INITIALIZATION_FILE).read_text())
    assert described["init"] == str((workdir / "stage1").resolve())
    assert any("shared_items/brand" in name for name in described["restored"])
    assert any("attention" in name for name in described["fresh"])
    assert {"source_items/ids:0 [20, 8]", "target_items/ids:0 [15, 8]"} <= {*described["restored"]}
    assert not described["restored_in_part"]
    assert not described["untrained"]
    assert not set(described["restored"]) & {*described["fresh"]}


@pytest.mark.parametrize(("above", "restores"), [(-0.1, True), (0.1, False)])
def test_stage_2_starts_from_scratch_where_there_is_little_to_transfer(
    workdir, small, tmp_path, capsys, above, restores
):
    lift = stage2.examine(config.tiny(), small, str(workdir / "stage1")).lift
    given = [
        "--preset=tiny",
        f"--init={workdir / 'stage1'}",
        "--set",
        f"stage2.min_lift={lift + above}",
    ]
    _train("2", small, tmp_path, *given)
    described = json.loads((tmp_path / "stage2" / runs.INITIALIZATION_FILE).read_text())
    assert described["lift"] == pytest.approx(lift)
    assert bool(described["restored"]) == restores
    said = "found too little to transfer" in capsys.readouterr().out
    assert said != restores


def test_a_start_is_described_once(workdir, small, tmp_path):
    """What another stage 1 would have given says nothing of weights that are trained already."""
    given = ["--preset=tiny", f"--init={workdir / 'stage1'}"]
    _train("2", small, tmp_path, *given)
    described = tmp_path / "stage2" / runs.INITIALIZATION_FILE
    before = described.stat().st_mtime_ns
    _train("2", small, tmp_path, *given)
    assert described.stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"holds another run .*init: .*stage1, none"):
        _train("2", small, tmp_path, *given, "--set", "stage2.min_lift=1e9")


def test_a_start_from_scratch_has_nothing_to_freeze(workdir, small, tmp_path, capsys):
    freeze = ["--preset=tiny", "--init=none", "--set", "stage2.encoders=freeze"]
    _train("2", small, tmp_path, *freeze)
    assert "warning: stage2.encoders=freeze: nothing is restored" in capsys.readouterr().out
    parameters = []
    for init in ("none", str(workdir / "stage1")):
        _train("2", small, tmp_path, "--dry_run", *freeze, f"--init={init}")
        [line] = re.findall("parameters: .*", capsys.readouterr().out)
        parameters.append(int(re.search(r"([\d,]+) trained", line)[1].replace(",", "")))
    assert parameters[1] < parameters[0]


def test_a_model_without_a_stage_1_starts_from_scratch(small, tmp_path):
    _train("2", small, tmp_path, "--preset=tiny", "--set=model.name=fm", "--set=stage2.epochs=1")
    described = json.loads((tmp_path / "stage2" / runs.INITIALIZATION_FILE).read_text())
    assert described["init"] == runs.NO_INIT
    assert not described["restored"]


def test_overwrite_keeps_the_run_until_the_new_one_is_found_good(workdir, small, tmp_path):
    shutil.copytree(workdir / "stage2", tmp_path / "stage2")
    again = ["--preset=tiny", "--overwrite", f"--init={workdir / 'stage1'}"]
    with pytest.raises(InputError, match="has other encoders"):
        _train("2", small, tmp_path, *again, "--set", "model.embedding_dim=16")
    with pytest.raises(InputError, match="holds no run of stage 1"):
        _train("2", small, tmp_path, "--preset=tiny", "--overwrite", "--init=nowhere")
    assert (tmp_path / "stage2" / runs.METRICS_FILE).is_file()


def test_a_damaged_stage_1_is_refused_before_anything_is_written(workdir, small, tmp_path):
    damaged = tmp_path / "stage1"
    shutil.copytree(workdir / "stage1", damaged)
    best = tf.train.latest_checkpoint(damaged / runs.BEST)
    [weights] = (damaged / runs.BEST).glob(f"{pathlib.Path(best).name}.data-*")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="does not load"):
        _train("2", small, tmp_path, "--preset=tiny")
    weights.write_bytes(whole)
    (damaged / runs.METRICS_FILE).write_text("{")
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        _train("2", small, tmp_path, "--preset=tiny")
    assert not (tmp_path / "stage2").exists()


def test_the_next_command_has_the_seed(small, tmp_path, capsys):
    given = ["--preset=tiny", "--set", "stage1.epochs=1"]
    _train("1", small, tmp_path, *given, "--seed=3")
    assert " --preset=tiny --seed=3 --set=stage1.epochs=1" in capsys.readouterr().out


def test_request_features_fit_a_stage_1_that_knows_none(workdir, small, tmp_path):
    changed = "model.request_features=hour,weekday,user", "model.user_buckets=7"
    settings = [part for change in changed for part in ("--set", change)]
    _train("2", small, tmp_path, "--preset=tiny", f"--init={workdir / 'stage1'}", *settings)
    described = json.loads((tmp_path / "stage2" / runs.INITIALIZATION_FILE).read_text())
    assert any("shared_items/brand" in name for name in described["restored"])
    tables = [name for name in described["fresh"] if "request_features/" in name]
    assert [name.split("/")[1] for name in tables] == ["hour:0 [25, 8]", "weekday:0 [8, 8]",
                                                       "user:0 [8, 8]"]  # fmt: skip
    run = trained_models.load_scorer(tmp_path / "stage2")
    assert np.abs(run.scorer.request_embedding.tables["user"]).max() > 0
    scored = predict(run.scorer, data.read_split(small, schema.STAGE2, schema.TEST, 16))
    assert np.isfinite(scored.logit).all()


def test_initialising_copies_stage_1_values(workdir, small, tmp_path):
    manifest = schema.read_manifest(small)
    settings = config.tiny()
    tables = runs.read_tables(small, manifest, settings)
    scorer = make_scorer(settings, tables, manifest.max_history)
    stage2.restore_encoders(scorer, str(workdir / "stage1"))
    pretrainer = make_pretrainer(settings, tables, manifest.max_history)
    checkpoints.restore_best(workdir / "stage1", pretrainer)
    for domain in schema.DOMAINS:
        for part in ("items", "sequences"):
            ours, theirs = getattr(scorer, part)[domain], getattr(pretrainer, part)[domain]
            for a, b in zip(ours.trainable_variables, theirs.trainable_variables, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_stage_1_leaves_the_ids_of_items_known_by_features(small):
    manifest = schema.read_manifest(small)
    for change, trained in ((["stage1.train_ids=false"], False), ([], True)):
        settings = config.override(config.tiny(), change)
        tables = runs.read_tables(small, manifest, settings)
        model = make_pretrainer(settings, tables, manifest.max_history)
        assert (
            any(v is model.items[schema.SOURCE].ids for v in model.trained_variables()) == trained
        )
    settings = config.override(config.tiny(), ["items.side_features=", "stage1.train_ids=false"])
    tables = runs.read_tables(small, manifest, settings)
    model = make_pretrainer(settings, tables, manifest.max_history)
    assert any(v is model.items[schema.SOURCE].ids for v in model.trained_variables())


@pytest.mark.parametrize("kind", ["hash", "quotient_remainder"])
def test_both_stages_train_with_shared_id_rows(small, tmp_path, kind):
    shared = ("--preset=tiny", f"--set=items.id_embedding={kind}", "--set=items.id_rows=4",
              "--set=stage1.train_ids=false")  # fmt: skip
    for stage in ("1", "2"):
        _train(stage, small, tmp_path, *shared, f"--set=stage{stage}.epochs=1")
    described = json.loads((tmp_path / "stage2" / runs.INITIALIZATION_FILE).read_text())
    assert any("source_items/ids:0 [6, 8]" in name for name in described["untrained"])
    assert any("quotients" in name for name in described["untrained"]) == (kind != "hash")
    more = (*shared[:2], shared[3], "--set=items.id_rows=5", f"--init={tmp_path / 'stage1'}")
    with pytest.raises(InputError, match=r"other encoders .*id_rows: 4, 5"):
        _train("2", small, tmp_path / "other", *more)


def test_stage_1_leaves_all_tables_of_ids_alone(small):
    settings = dataclasses.replace(
        config.tiny(),
        items=dataclasses.replace(config.tiny().items, id_embedding="quotient_remainder"),
        stage1=dataclasses.replace(config.tiny().stage1, train_ids=False),
    )
    manifest = schema.read_manifest(small)
    tables = runs.read_tables(small, manifest, settings)
    model = make_pretrainer(settings, tables, manifest.max_history)
    trained = {id(v) for v in model.trained_variables()}
    for items in model.items.values():
        assert len(items.id_variables) == 2
        assert not trained & {id(v) for v in items.id_variables}


def test_number_of_parameters_of_tiny(workdir):
    scorer = trained_models.load_scorer(workdir / "stage2").scorer
    assert sum(int(tf.size(v)) for v in scorer.trainable_variables) == PARAMETERS_OF_TINY


def test_encoding_once_gives_the_same_scores(workdir, small):
    scorer = trained_models.load_scorer(workdir / "stage2").scorer
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TEST, 16)))
    direct = scorer(batch).numpy()
    apart = encode_and_score(scorer, batch)
    np.testing.assert_allclose(apart, direct, rtol=1e-5, atol=1e-6)
    row_each = encode_and_score(scorer, batch, batch["candidates"][:, :1])
    np.testing.assert_allclose(row_each, direct[:, :1], rtol=1e-5, atol=1e-6)


def test_scores_do_not_depend_on_padding_or_batch(workdir, small):
    scorer = trained_models.load_scorer(workdir / "stage2").scorer
    one = predict(scorer, data.read_split(small, schema.STAGE2, schema.TEST, 1))
    many = predict(scorer, data.read_split(small, schema.STAGE2, schema.TEST, 64))
    np.testing.assert_allclose(one.logit, many.logit, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.request, many.request)


def test_evaluate_writes_metrics_and_prints_the_references(workdir, capsys):
    commands.run_main(evaluate, f"--run_dir={workdir / 'stage2'}")
    printed = capsys.readouterr().out
    assert "item popularity" in printed
    assert "logged score" in printed
    metrics = json.loads((workdir / "stage2" / "metrics.json").read_text())
    assert set(evaluate.COLUMNS) <= set(metrics["test"])
    assert f"{metrics['test']['unclicked']:.2%} of the candidates have no click" in printed


def test_what_a_split_came_to_is_added_to_what_training_said_of_it(tmp_path):
    whole_files.write_json(tmp_path / "metrics.json", {"validation": {"epoch": 3, "auc": 0.5}})
    runs.write_metrics(tmp_path, "validation", {"auc": 0.6})
    runs.write_metrics(tmp_path, "test", {"auc": 0.7})
    expected = {"validation": {"epoch": 3, "auc": 0.6}, "test": {"auc": 0.7}}
    assert json.loads((tmp_path / "metrics.json").read_text()) == expected


def test_kept_predictions_are_those_of_the_metrics(workdir, small, capsys):
    run_dir = workdir / "stage2"
    commands.run_main(evaluate, f"--run_dir={run_dir}", "--keep_predictions")
    assert f"{run_dir}/metrics.json and predictions-test.npz" in capsys.readouterr().out
    kept = kept_predictions.read(run_dir, schema.TEST)
    told = json.loads((run_dir / "metrics.json").read_text())[schema.TEST]
    found = metrics.click_metrics(kept.label, kept.probability, kept.request)
    assert found == {name: told[name] for name in found}
    (batch,) = data.read_split(small, schema.STAGE2, schema.TEST, 1000)
    for name in ("source", "target"):
        ragged = tf.RaggedTensor.from_tensor(batch[f"{name}_history"], padding=0)
        np.testing.assert_array_equal(getattr(kept, f"{name}_length"), ragged.row_lengths())
    np.testing.assert_array_equal(kept.candidate, batch["candidates"].numpy().ravel())
    assert len(set(kept.user)) == len(set(batch["user_id"].numpy()))


def test_candidates_without_a_click_are_counted_and_those_of_which_more_is_known():
    table = ItemTable(
        schema.TARGET,
        ids=["", "", "a", "b", "c", "d"],
        titles=[""] * 6,
        count=np.array([0, 0, 3, 0, 0, 0]),
        features={
            "brand": np.array([0, 1, 1, 1, 1, 1], np.int32),
            schema.TITLE_WORDS: np.array([[0, 0]] * 3 + [[7, 0]] + [[0, 0]] * 2, np.int32),
        },
        vocabulary_sizes={},
        vectors=np.array([[0, 0]] * 4 + [[0, 1]] + [[0, 0]], np.float16),
    )
    shares = evaluate.unclicked_shares(table, np.array([1, 2, 2, 3, 4, 4, 5, 2]))
    assert shares == {"unclicked": 5 / 8, "unclicked_described": 3 / 8}


def test_a_finished_run_is_left_alone_and_another_is_refused(workdir, small, capsys):
    files = [workdir / "stage2" / name for name in (runs.HISTORY_FILE, runs.METRICS_FILE)]
    before = [file.read_text() for file in files]
    _train("2", small, workdir, "--preset=tiny")
    said = capsys.readouterr().out
    assert "stage2 is finished already (--overwrite trains it again): best epoch " in said
    assert "wrote" not in said
    assert [file.read_text() for file in files] == before
    with pytest.raises(InputError, match=r"holds another run .*seed: 0, 9.*--overwrite"):
        _train("2", small, workdir, "--preset=tiny", "--seed=9")
    with pytest.raises(InputError, match=r"holds another run .*seed: 0, 7"):
        _train("2", small, workdir, "--preset=tiny", "--set=seed=7")


def test_an_interrupted_run_continues(small, tmp_path):
    strategy = tf.distribute.get_strategy()
    short = config.override(config.tiny(), ["stage1.epochs=1", "stage1.patience=9"])
    long = config.override(config.tiny(), ["stage1.epochs=3", "stage1.patience=9"])
    stage1.run_stage1(short, small, tmp_path / "stage1", strategy)
    (tmp_path / "stage1" / runs.METRICS_FILE).unlink()
    (tmp_path / "stage1" / runs.CONFIG_FILE).write_text(long.to_json())
    stage1.run_stage1(long, small, tmp_path / "stage1", strategy)
    history = json.loads((tmp_path / "stage1" / "history.json").read_text())
    assert [entry["epoch"] for entry in history] == [0, 1, 2, 3]


def test_errors_name_the_remedy(small, workdir, tmp_path):
    other = write_small_dataset(tmp_path / "other", dataset_hash="other")
    cases = [
        (("3", small, tmp_path), "--stage=3 is not one of: 1, 2"),
        (("1", tmp_path / "none", tmp_path), "is not a directory: give --data_dir=DATA where"),
        (("1", tmp_path, tmp_path), "not a finished data set"),
        (("1", small, tmp_path, "--init=x"), "--init=x is for --stage=2 only"),
        (("2", small, tmp_path), "holds no run of stage 1: train one with python -m"),
        (
            ("2", other, tmp_path, f"--init={workdir / 'stage1'}", "--preset=tiny"),
            "was trained on the data set small, this one is other",
        ),
        (
            ("2", small, tmp_path, f"--init={workdir / 'stage1'}"),
            "has other encoders .*model.embedding_dim: 8, 32",
        ),
        (("1", small, tmp_path, "--preset=big"), "--preset=big is not one of"),
    ]
    for arguments, message in cases:
        with pytest.raises(InputError, match=message):
            _train(*arguments)


def test_another_schema_is_refused(small, tmp_path):
    other = write_small_dataset(tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
    with pytest.raises(InputError, match=r"has schema 99 .* build the data set again"):
        schema.read_manifest(other)
    (other / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is not a data set's manifest"):
        schema.read_manifest(other)


def test_damaged_data_sets_are_named(small, tmp_path):
    damaged = write_small_dataset(tmp_path / "damaged")
    items = damaged / schema.item_table_path(schema.SOURCE)
    whole = items.read_bytes()
    items.unlink()
    with pytest.raises(
        InputError, match=r"source\.parquet can't be read .*build the data set again"
    ):
        _train("1", damaged, tmp_path, "--preset=tiny")
    items.write_bytes(whole)
    [shard] = damaged.glob(schema.shard_glob(schema.STAGE1, schema.TRAIN))
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(
        InputError, match=r"-00000-of-00001 is damaged .*see python -m pipelines.verify"
    ):
        _train("1", damaged, tmp_path, "--preset=tiny", "--overwrite")
    manifest = json.loads((damaged / "manifest.json").read_text())
    del manifest["records"]
    (damaged / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"is damaged .*'records'.*build the data set again"):
        schema.read_manifest(damaged)


def test_a_validation_split_of_one_class_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(stage2.metrics, "auc", lambda labels, scores: float("nan"))
    data_dir = write_small_dataset(tmp_path / "data")
    with pytest.raises(InputError, match="the validation split gives auc=nan: it needs both"):
        _train("2", data_dir, tmp_path, "--preset=tiny", "--init=none")


def test_runs_of_two_data_sets_are_not_evaluated_together(workdir, tmp_path):
    other = write_small_dataset(tmp_path / "other", dataset_hash="other")
    _train("2", other, tmp_path, "--preset=tiny", "--init=none")
    dirs = [f"--run_dir={d / 'stage2'}" for d in (workdir, tmp_path)]
    with pytest.raises(InputError, match=r"trained on the data set other, .* on small: evaluate"):
        commands.run_main(evaluate, *dirs)


def test_the_next_command_repeats_the_settings(small, tmp_path, capsys):
    _train("1", small, tmp_path, "--preset=tiny", "--set=stage1.epochs=1")
    assert f"--workdir={tmp_path} --preset=tiny --set=stage1.epochs=1\n" in capsys.readouterr().out


def test_a_stage_1_run_is_no_scorer(workdir):
    with pytest.raises(InputError, match="holds a run of stage1, not of stage2"):
        trained_models.load_scorer(workdir / "stage1")


def test_an_unfinished_run_is_no_scorer(small, tmp_path):
    manifest = schema.read_manifest(small)
    info = runs.RunInfo("stage2", str(small), "small", "none", {})
    runs.prepare(tmp_path, config.tiny(), manifest, info)
    with pytest.raises(InputError, match="holds an unfinished run"):
        trained_models.load_scorer(tmp_path)


def test_the_command_line_prints_one_line():
    ended = subprocess.run(
        [sys.executable, "-m", "sitn_tf.train", "--stage=1", "--data_dir=nowhere", "--workdir=w"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    [line] = ended.stderr.strip().splitlines()
    assert line.startswith("error: --data_dir=nowhere is not a directory")
    unknown = subprocess.run(
        [sys.executable, "-m", "sitn_tf.train", "--stages=1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert unknown.returncode == 2
    assert len(unknown.stderr.splitlines()) == 1
    assert "Unknown command line flag 'stages'. Did you mean: stage ?" in unknown.stderr


def test_two_replicas_from_the_command_line(small, tmp_path):
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "sitn_tf.train", "--stage=2", "--preset=tiny", "--replicas=2"),
            *("--set=model.name=fm", "--set=stage2.epochs=1"),
            *(f"--data_dir={small}", f"--workdir={tmp_path}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "wrote" in ended.stdout


def test_a_loss_that_is_not_finite_stops(small, tmp_path):
    # Of its two steps an epoch the first spoils the weights.
    wild = config.override(config.tiny(), ["stage1.learning_rate=1e30", "stage1.batch_size=20"])
    wild = dataclasses.replace(
        wild, contrast=dataclasses.replace(config.paper().contrast, granularities=(4,))
    )
    with pytest.raises(InputError, match=r"the loss is (nan|inf)"):
        stage1.run_stage1(wild, small, tmp_path / "stage1", tf.distribute.get_strategy())
