"""The whole line: logs → data set → stage 1 → stage 2 → SavedModel → answers without Python."""

import json

import numpy as np
import pytest

from export import export_model, native, verify
from pipelines import build_dataset, synthetic
from sitn_tf import data, evaluate, schema, train, trained_models
from tests import commands

USERS = 1500
SETTINGS = (
    "--set=model.embedding_dim=16",
    "--set=contrast.granularities=8,16",
    "--set=stage1.batch_size=64",
    "--set=stage1.epochs=10",
    "--set=stage2.batch_size=32",
    "--set=stage2.epochs=8",
    "--set=stage2.min_steps=0",
    "--set=stage2.race_steps=0",
)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """The directory in which the whole line was run, and a control that sees no source."""
    root = tmp_path_factory.mktemp("line")
    logs, dataset, run, control = root / "logs", root / "data", root / "sitn", root / "no_source"
    commands.run_main(synthetic, f"--output={logs}", f"--users={USERS}", "--cold=0.8")
    build_dataset.run(
        [
            *(f"--{domain}_log={logs / domain}.jsonl.gz" for domain in schema.DOMAINS),
            *(f"--{domain}_items={logs / domain}_items.jsonl.gz" for domain in schema.DOMAINS),
            "--label_field=click",
            "--request_field=request_id",
            "--score_field=score",
            f"--output={dataset}",
        ]
    )
    where = f"--data_dir={dataset}"
    commands.run_main(train, "--stage=1", where, f"--workdir={run}", *SETTINGS)
    commands.run_main(train, "--stage=2", where, f"--workdir={run}", *SETTINGS)
    blind = (*SETTINGS, "--init=none", "--set=model.use_source=false")
    commands.run_main(train, "--stage=2", where, f"--workdir={control}", *blind)
    for workdir in (run, control):
        commands.run_main(evaluate, f"--run_dir={workdir / 'stage2'}")
    commands.run_main(export_model, f"--run_dir={run / 'stage2'}", f"--output={root / 'servable'}")
    return root


def _test_auc(run_dir):
    return json.loads((run_dir / "metrics.json").read_text())["test"]["auc"]


def test_the_source_history_helps(line):
    """The planted interests are shared, and most users have next to no target clicks."""
    assert _test_auc(line / "sitn" / "stage2") > _test_auc(line / "no_source" / "stage2")


def test_no_model_beats_the_probabilities_that_made_the_clicks(line, capsys):
    references, row = evaluate.evaluate_run(line / "sitn" / "stage2", None, schema.TEST)
    assert row["auc"] < references["logged score"]["auc"]
    assert references["logged score"]["calibration_error"] < 0.05


def test_held_out_users_are_found_across_domains(line):
    metrics = json.loads((line / "sitn" / "stage1" / "metrics.json").read_text())["validation"]
    assert metrics["recall"] > 2 * metrics["chance"]
    assert metrics["median_rank"] < metrics["users"] / 4


def test_served_scores_are_the_trained_model_s(line):
    """Serialized requests through the C++ loader in another process."""
    run = trained_models.load_scorer(line / "sitn" / "stage2")
    shards = sorted(str(p) for p in (line / "data").glob(schema.shard_glob("stage2", "test")))
    import tensorflow as tf

    serialized = [record.numpy() for record in tf.data.TFRecordDataset(shards)]
    batch = data.parse(serialized, schema.STAGE2_FEATURES)
    expected = tf.sigmoid(run.scorer(batch)).numpy()
    with native.Session(line / "servable" / "1") as session:
        answer = session.run("serving_default", {"examples": np.array(serialized, object)})
    real = batch["candidates"].numpy() != schema.PAD_ID
    np.testing.assert_allclose(answer["ctr"][real], expected[real], atol=1e-6)


def test_verify_passes_on_the_export(line, capsys):
    assert commands.run_main(verify, f"--servable={line / 'servable' / '1'}") in (0, None)
    assert "ok" in capsys.readouterr().out
