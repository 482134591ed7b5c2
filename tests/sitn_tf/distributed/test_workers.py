"""Two worker processes on loopback give the losses and weights of one process."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from sitn_tf import schema
from sitn_tf.distributed.replicas import cpu_strategy
from tests.ports import free_ports
from tests.sitn_tf.distributed.processes import Cluster
from tests.sitn_tf.distributed.ten_steps import ROWS, Trial, assert_same, read_batches
from tests.sitn_tf.training import resuming
from tests.small_dataset import write_small_dataset


def start_workers(command, count):
    """Processes of one cluster; `command(index)` gives the arguments after `python -m`."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    started = []
    for index in range(count):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = os.environ | {"TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *command(index)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return started


def finish(workers, seconds=300):
    try:
        return [worker.communicate(timeout=seconds)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()


@pytest.mark.parametrize(
    "stage", [schema.STAGE1, pytest.param(schema.STAGE2, marks=pytest.mark.slow)]
)
def test_two_processes_after_ten_steps(tmp_path, two_cpus, stage):
    small = write_small_dataset(tmp_path / "small")
    outputs = [tmp_path / f"{index}.npz" for index in range(2)]
    workers = start_workers(
        lambda index: ["tests.sitn_tf.distributed.worker", stage, str(small), str(outputs[index])],
        2,
    )
    said = finish(workers)
    assert [worker.returncode for worker in workers] == [0, 0], said
    one = Trial(small, stage, cpu_strategy(two_cpus[:1])).train(read_batches(small, stage), (ROWS,))
    for output in outputs:
        trained = np.load(output)
        np.testing.assert_allclose(trained["losses"], one[0], rtol=1e-5)
        assert_same([trained[f"weight_{i}"] for i in range(len(one[1]))], one[1])


@pytest.mark.slow
def test_the_command_trains_in_two_processes_as_in_one(tmp_path):
    small = write_small_dataset(tmp_path / "small")

    def command(workdir, stage):
        return [
            "sitn_tf.train",
            f"--stage={stage}",
            f"--data_dir={small}",
            f"--workdir={tmp_path / workdir}",
            "--preset=tiny",
            "--set=stage1.batch_size=15",
            "--set=stage2.batch_size=32",
        ]

    for stage in (1, 2):
        alone = subprocess.run(
            [sys.executable, "-m", *command("one", stage)], capture_output=True, text=True
        )
        assert alone.returncode == 0, alone.stderr
        workers = start_workers(lambda _, stage=stage: command("two", stage), 2)
        said = finish(workers)
        assert [worker.returncode for worker in workers] == [0, 0], said
        one, two = (
            json.loads((tmp_path / name / f"stage{stage}" / "history.json").read_text())
            for name in ("one", "two")
        )
        assert len(one) == len(two)
        for ours, theirs in zip(one, two, strict=True):
            for name in ours.keys() - {"seconds"}:
                assert theirs[name] == pytest.approx(ours[name], rel=1e-3, abs=1e-4), name
    assert not list(tmp_path.glob("two/*/checkpoints/last/*_temp*"))


@pytest.mark.slow
def test_a_race_in_two_processes_ends_as_in_one(tmp_path):
    """Each worker comes to the same decision, and the command given again finds it."""
    small = write_small_dataset(tmp_path / "small")

    def command(workdir, *more):
        return [
            "sitn_tf.train",
            f"--data_dir={small}",
            f"--workdir={tmp_path / workdir}",
            "--preset=tiny",
            "--set=contrast.i2c_weight=0",
            "--set=stage2.race_steps=1",
            "--set=stage2.batch_size=32",
            *more,
        ]

    init = f"--init={tmp_path / 'one' / 'stage1'}"
    for more in (["--stage=1"], ["--stage=2", init]):
        alone = subprocess.run(
            [sys.executable, "-m", *command("one", *more)], capture_output=True, text=True
        )
        assert alone.returncode == 0, alone.stderr
    for _ in range(2):
        workers = start_workers(lambda _: command("two", "--stage=2", init), 2)
        said = finish(workers)
        assert [worker.returncode for worker in workers] == [0, 0], said
        decided = {line for text in said for line in text.splitlines() if "the race went" in line}
        assert len({line.partition(":")[0] for line in decided}) <= 1
    one, two = (
        json.loads((tmp_path / name / "stage2" / "race.json").read_text())
        for name in ("one", "two")
    )
    assert two["winner"] == one["winner"]
    for name, start in one["starts"].items():
        assert two["starts"][name]["auc"] == pytest.approx(start["auc"], abs=1e-4)
    assert not (tmp_path / "two" / "stage2.race").exists()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [2, 0])
def test_one_of_four_that_is_killed_changes_no_bit(tmp_path, killed):
    """The others end and name the command that all go on with; 0 writes the run directory."""
    small = write_small_dataset(tmp_path / "small")

    def command(workdir):
        return [
            *("sitn_tf.train", "--stage=2", "--init=none", "--preset=tiny", "--checkpoint_steps=5"),
            f"--data_dir={small}",
            f"--workdir={tmp_path / workdir}",
            "--set=stage2.batch_size=8",
            "--set=stage2.epochs=4",
            "--set=stage2.patience=9",
        ]

    with Cluster(tmp_path / "said_whole", worker=4) as cluster:
        cluster.start_all(*command("whole"))
        assert set(cluster.wait().values()) == {0}, cluster.said("worker")
    with Cluster(tmp_path / "said_killed", worker=4) as cluster:
        cluster.start_all(*command("killed"))
        cluster.wait_for(r"epoch +2  auc", "worker")
        cluster.kill("worker", killed)
        statuses = cluster.wait()
        assert statuses.pop(("worker", killed)) == -9
        assert set(statuses.values()) == {2}, cluster.said(*next(iter(statuses)))
        for survivor in statuses:
            said = cluster.said(*survivor)
            assert "error: another worker has ended (" in said
            assert "start all workers again with their command" in said
            assert "Traceback" not in said
    with Cluster(tmp_path / "said_again", worker=4) as cluster:
        cluster.start_all(*command("killed"))
        assert set(cluster.wait().values()) == {0}, cluster.said("worker")
        assert "continuing" in cluster.said("worker")
    resuming.assert_same_outcome(tmp_path / "killed" / "stage2", tmp_path / "whole" / "stage2")
