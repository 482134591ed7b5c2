"""A step with tables sharded over two parameter servers, in processes of their own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import data, schema
from sitn_tf.distributed import replicas
from sitn_tf.training import steps
from tests.click_step import make_click_step
from tests.ports import free_ports
from tests.sitn_tf.distributed import parameter_server_step
from tests.small_dataset import SOURCE_ITEMS, TARGET_ITEMS, write_small_dataset

MODULE = "tests.sitn_tf.distributed.parameter_server_step"


@pytest.fixture
def cluster():
    """Addresses of a chief, and of two parameter servers and a worker that run meanwhile."""
    first, second, worker, chief = (f"127.0.0.1:{port}" for port in free_ports(4))
    cluster = {"ps": [first, second], "worker": [worker], "chief": [chief]}
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    servers = [
        subprocess.Popen(
            [sys.executable, "-m", MODULE, "serve", json.dumps(cluster), job, str(task)],
            env=environment,
        )
        for job in ("ps", "worker")
        for task in range(len(cluster[job]))
    ]
    yield cluster
    for server in servers:
        server.kill()
        server.wait()


@pytest.mark.slow
def test_a_step_with_sharded_tables_is_that_of_one_process(cluster, tmp_path):
    small = write_small_dataset(tmp_path / "data")
    tf.keras.utils.set_random_seed(5)
    strategy = replicas.make_strategy()
    with strategy.scope():
        scorer, optimizer = parameter_server_step.make(str(small))
    state = tf.train.Checkpoint(model=scorer, optimizer=optimizer)
    begun = state.save(str(tmp_path / "begun"))
    command = [sys.executable, "-m", MODULE, "step", json.dumps(cluster), str(small), begun]
    subprocess.run([*command, str(tmp_path)], check=True, timeout=300)
    report = json.loads((tmp_path / "report.json").read_text())

    # Each id table lies in two halves, one a server, and only rows of it are read or written.
    rows = [
        (r + 1) // 2 if half == 0 else r // 2
        for r in (SOURCE_ITEMS, TARGET_ITEMS)
        for half in (0, 1)
    ]
    assert [shard[1] for shard in report["shards"]] == rows
    assert {shard[0].split("/task:")[1][0] for shard in report["shards"]} == {"0", "1"}
    assert report["reads"]
    assert set(report["reads"]) <= {"ResourceGather", "ResourceScatterSub"}

    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 32)))
    step = steps.traced_once(make_click_step(strategy, scorer, optimizer))
    before = [v.numpy() for v in scorer.trainable_variables]
    loss = float(step(batch)["loss"])
    assert report["loss"] == pytest.approx(loss, rel=1e-5)
    ours = [v.numpy() for v in [*scorer.trainable_variables, *optimizer.variables]]
    assert any((a != b).any() for a, b in zip(before, ours, strict=False))
    state.restore(report["checkpoint"]).assert_consumed()
    theirs = [v.numpy() for v in [*scorer.trainable_variables, *optimizer.variables]]
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
