"""The train command on parameter servers: the runs of one process, and what survives what."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import runs, schema, trained_models
from sitn_tf.models.registry import SCORERS
from sitn_tf.sections import SINGLE_DOMAIN
from tests.sitn_tf.distributed import steps_on_servers, ten_steps
from tests.sitn_tf.distributed.processes import TRAIN, Cluster
from tests.small_dataset import write_small_dataset

pytestmark = pytest.mark.slow

BATCH = ("--set=stage1.batch_size=15", "--set=stage2.batch_size=32")


@pytest.fixture
def small(tmp_path):
    return write_small_dataset(tmp_path / "small")


def command(small, workdir, stage, *more):
    where = f"--data_dir={small}", f"--workdir={workdir}"
    return (TRAIN, f"--stage={stage}", *where, "--preset=tiny", *BATCH, *more)


def alone(*arguments, status=0):
    ran = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == status, ran.stdout + ran.stderr
    return ran.stdout


def on_servers(folder, arguments, ps=2, worker=1, status=0):
    """All processes of a cluster to their end; what the chief said."""
    with Cluster(folder, ps=ps, worker=worker, chief=1) as cluster:
        cluster.start_all(*arguments)
        statuses = cluster.wait()
        said = cluster.said("chief")
        assert statuses.pop(("chief", 0)) == status, said
        # Those who serve end well however the chief ended.
        assert set(statuses.values()) == {0}, {who: cluster.said(*who) for who in statuses}
    return said


def history(run_dir):
    return json.loads((run_dir / runs.HISTORY_FILE).read_text())


def weights(run_dir):
    """All trained weights of the best epoch, by a model of one process."""
    if run_dir.name == schema.STAGE1:
        return trained_models.load_pretrainer(run_dir).model.get_weights()
    return trained_models.load_scorer(run_dir).scorer.get_weights()


def slots(run_dir):
    """The last checkpoint's optimizer: shape and values of each variable."""
    path = tf.train.latest_checkpoint(str(run_dir / runs.LAST))
    names = [name for name, _ in tf.train.list_variables(path) if name.startswith("optimizer/")]
    values = {name: np.asarray(tf.train.load_variable(path, name)) for name in names}
    return {name: value for name, value in values.items() if value.dtype.kind in "fi"}


def assert_same_run(ours, theirs):
    """History, weights and slots: sums of a step are taken in another order, nothing else."""
    assert len(history(ours)) == len(history(theirs))
    for a, b in zip(history(ours), history(theirs), strict=True):
        for name in a.keys() - {"seconds"}:
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-4), name
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=2e-5)
    here, there = slots(ours), slots(theirs)
    assert here.keys() == there.keys()
    for name in here:
        assert here[name].shape == there[name].shape, name
        np.testing.assert_allclose(there[name], here[name], rtol=1e-2, atol=1e-7, err_msg=name)


def test_one_worker_trains_both_stages_as_one_process(small, tmp_path):
    """From the same random tables too; stage 2 keeps one accumulator for each row of a table."""
    more = ("--set=stage2.optimizer=adagrad", "--set=stage1.train_ids=true")
    for stage in (1, 2):
        alone(*command(small, tmp_path / "one", stage, *more))
        on_servers(tmp_path / "said", command(small, tmp_path / "servers", stage, *more))
        run = f"stage{stage}"
        assert_same_run(tmp_path / "one" / run, tmp_path / "servers" / run)
    rows = {value.shape for value in slots(tmp_path / "servers" / "stage2").values()}
    scorer = trained_models.load_scorer(tmp_path / "servers" / "stage2").scorer
    for items in scorer.items.values():
        assert (items.table.size,) in rows
        assert (items.table.size, 8) not in rows


def test_a_run_goes_on_on_other_numbers_of_servers(small, tmp_path):
    """Stopped on two servers, on three, and ended on none: as if it had not been."""
    more = ("--init=none", "--set=stage2.epochs=4", "--set=stage2.patience=9")
    alone(*command(small, tmp_path / "one", 2, *more))
    arguments = command(small, tmp_path / "moved", 2, *more)
    for epoch, servers in ((1, 2), (2, 3)):
        folder = tmp_path / f"said{servers}"
        with Cluster(folder, ps=servers, worker=1, chief=1) as cluster:
            cluster.start_all(*arguments)
            cluster.wait_for(rf"epoch +{epoch}  auc")
            cluster.started["chief", 0].send_signal(signal.SIGTERM)
            assert set(cluster.wait().values()) == {0, 75}
            assert "give the same command again" in cluster.said("chief")
    assert "continuing" in alone(*arguments)
    assert_same_run(tmp_path / "one" / "stage2", tmp_path / "moved" / "stage2")


def test_a_worker_that_is_killed_is_replaced(small, tmp_path):
    """The other one goes on meanwhile; with none left training waits. Each batch is learned."""
    arguments = command(
        small,
        tmp_path / "run",
        2,
        "--init=none",
        "--set=stage2.epochs=40",
        "--set=stage2.patience=40",
        "--set=stage2.batch_size=4",
    )
    with Cluster(tmp_path / "said", ps=2, worker=2, chief=1) as cluster:
        cluster.start_all(*arguments)
        cluster.wait_for(r"epoch +1  auc")
        cluster.kill("worker", 0)
        cluster.wait_for(r"epoch +3  auc")
        cluster.start("worker", 0, *arguments)
        cluster.wait_for(r"(?s)serves until.*serves until", "worker")
        # The first one is taken up again once all are there: until then nobody may be.
        cluster.kill("worker", 1)
        cluster.start("worker", 1, *arguments)
        statuses = cluster.wait()
        assert set(statuses.values()) == {0}, cluster.said("chief")
    epochs = history(tmp_path / "run" / "stage2")
    assert len(epochs) == 40
    assert {entry["records"] for entry in epochs} == {120}
    assert {entry["steps"] for entry in epochs} == {30}
    assert epochs[-1]["loss"] < epochs[0]["loss"]


def test_a_server_that_is_killed_ends_the_run_which_goes_on_when_started_again(small, tmp_path):
    more = ("--init=none", "--set=stage2.epochs=4", "--set=stage2.patience=9")
    alone(*command(small, tmp_path / "one", 2, *more))
    arguments = command(small, tmp_path / "run", 2, *more)
    with Cluster(tmp_path / "said", ps=2, worker=1, chief=1) as cluster:
        cluster.start_all(*arguments)
        cluster.wait_for(r"epoch +1  auc")
        cluster.kill("ps", 1)
        statuses = cluster.wait()
        assert statuses == {("ps", 0): 0, ("ps", 1): -9, ("worker", 0): 0, ("chief", 0): 2}
        [error] = re.findall(r"(?m)^error: .*$", cluster.said("chief"))
        address = cluster.addresses["ps"][1]
    assert f"parameter server 1 ({address}) has ended" in error
    assert "Traceback" not in cluster.said("chief")
    assert "continuing" in on_servers(tmp_path / "again", arguments)
    assert_same_run(tmp_path / "one" / "stage2", tmp_path / "run" / "stage2")


CHOICES = {
    "stage1": [
        "stage1,stage1.micro_batches=3,stage1.train_ids=true",
        "stage1,contrast.assignment=balanced,items.id_dropout=0.5",
    ],
    "settings": [
        "stage2,model.request_features=hour,model.name=sitn",
        "stage2,items.id_embedding=hash,items.id_rows=5",
        "stage2,items.id_embedding=quotient_remainder,items.id_rows=5",
        "stage2,model.name=wide_deep,wide.optimizer=ftrl",
        "stage2,model.name=din,din.l2=0.5",
    ],
    "single_domain": [f"stage2,model.name={name}" for name in SINGLE_DOMAIN],
    "both_domains": [f"stage2,model.name={name}" for name in SCORERS if name not in SINGLE_DOMAIN],
}


@pytest.mark.parametrize("about", CHOICES)
def test_every_model_takes_the_steps_of_one_process(about, small, tmp_path):
    module = "tests.sitn_tf.distributed.steps_on_servers"
    alone(module, str(small), str(tmp_path), *CHOICES[about])
    for number, choice in enumerate(CHOICES[about]):
        stage, settings = steps_on_servers.of(choice)
        trial = ten_steps.Trial(small, stage, tf.distribute.get_strategy(), settings)
        batches = ten_steps.read_batches(small, stage, settings)[:3]
        losses, weights = trial.train(batches)
        saved = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_allclose(saved["losses"], losses, rtol=1e-5, err_msg=choice)
        ten_steps.assert_same([saved[f"weight_{i}"] for i in range(len(weights))], weights)
