"""What TF_CONFIG makes of a process, for whom it waits, and what it says of those who ended."""

import itertools
import json
import logging
import socket
import threading

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf.distributed import parameter_servers
from sitn_tf.distributed.parameter_servers import Member
from sitn_tf.distributed.replicas import lost_worker, make_strategy
from sitn_tf.errors import InputError
from sitn_tf.layers.drawn_rows import RandomSigns, SpareReservedRows

CLUSTER = {"chief": ["a:1"], "ps": ["b:1", "c:1"], "worker": ["d:1"]}


def config(monkeypatch, cluster, job, task):
    told = {"cluster": cluster, "task": {"type": job, "index": task}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(told))


def test_members(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert parameter_servers.member() is None
    config(monkeypatch, {"worker": ["a:1", "b:1"]}, "worker", 1)
    assert parameter_servers.member() is None
    config(monkeypatch, CLUSTER, "ps", 1)
    assert parameter_servers.member() == Member(CLUSTER, "ps", 1)
    assert parameter_servers.member().name == "parameter server 1 (c:1)"


@pytest.mark.parametrize(
    ("cluster", "job", "task", "message"),
    [
        ({"ps": ["a:1"], "worker": ["b:1"]}, "ps", 0, "names 1 ps, 1 worker: .* one address under"),
        ({"chief": ["a:1"], "ps": ["b:1", "c:1"]}, "ps", 0, "names 1 chief, 2 ps: beside"),
        (CLUSTER, "evaluator", 0, "task is evaluator 0, of a cluster of 1 chief, 2 ps, 1 worker"),
        (CLUSTER, "worker", 1, "task is worker 1, of"),
        (CLUSTER | {"ps": ["b"]}, "ps", 0, "address 'b' is not host:port: such as a:5000"),
    ],
)
def test_a_cluster_that_can_not_train_is_refused(monkeypatch, cluster, job, task, message):
    config(monkeypatch, cluster, job, task)
    with pytest.raises(InputError, match=message):
        parameter_servers.member()


def test_only_the_chief_makes_a_strategy(monkeypatch):
    config(monkeypatch, CLUSTER, "worker", 0)
    with pytest.raises(InputError, match=r"makes this process worker 0 \(d:1\): the chief trains"):
        make_strategy()
    with pytest.raises(InputError, match="replicas=2: with TF_CONFIG each worker is one"):
        make_strategy(2)


def test_a_server_that_ended_is_named():
    own = Member(CLUSTER, "chief", 0)
    said = 'failed to connect; "/job:ps/replica:0/task:1" RPC'
    lost = parameter_servers.lost_server(own, tf.errors.UnavailableError(None, None, said))
    assert str(lost) == (
        "parameter server 1 (c:1) has ended, and its part of the tables with it: start all "
        "processes again with their command: training goes on from the last checkpoint"
    )
    stale = "Unable to find the relevant tensor remote_handle: /job:ps/replica:0/task:0"
    lost = parameter_servers.lost_server(own, tf.errors.InvalidArgumentError(None, None, stale))
    assert "parameter server 0 (b:1)" in str(lost)
    for other in (
        tf.errors.InvalidArgumentError(None, None, f"indices[3] = 9 is not in [0, 9) {said}"),
        tf.errors.UnavailableError(None, None, "/job:worker/replica:0/task:0 is gone"),
    ):
        assert parameter_servers.lost_server(own, other) is None


def test_a_worker_that_ended_is_told_from_other_errors(monkeypatch):
    said = "Graph execution error:\n\nCollective ops is aborted by: Socket closed\nThe error"
    gone = tf.errors.UnavailableError(None, None, said)
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert lost_worker(gone) is None
    config(monkeypatch, {"worker": ["a:1", "b:1"]}, "worker", 1)
    assert str(lost_worker(gone)) == (
        "another worker has ended (Socket closed): start all workers "
        "again with their command: training goes on from the last checkpoint"
    )
    assert lost_worker(tf.errors.InvalidArgumentError(None, None, "indices[3] = 9")) is None


def test_what_tensorflow_logs_of_an_end_is_a_line():
    said = "Worker %s failed with %r:%s", ("task:1", ValueError(), "gone\n2 root errors\n")
    record = logging.LogRecord("tensorflow", logging.ERROR, "", 0, *said, None)
    assert parameter_servers._first_lines(record)
    assert record.getMessage() == "Worker task:1 failed with ValueError():gone"


def test_a_chief_is_awaited_first_and_then_its_end(monkeypatch):
    monkeypatch.setattr(parameter_servers, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(parameter_servers, "REFUSED_SECONDS", 0.05)
    with socket.socket() as chief:
        chief.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{chief.getsockname()[1]}"
        waiting = threading.Thread(target=parameter_servers._await_end, args=(address,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "it has given up a chief that was not there yet"
        chief.listen(100)
        waiting.join(0.3)
        assert waiting.is_alive(), "it has given up a chief that listens"
    waiting.join(5.0)
    assert not waiting.is_alive()


@pytest.mark.parametrize(("rows", "width"), [(10, 4), (11, 3), (1001, 7)])
def test_shards_start_as_the_whole_table(rows, width):
    """The very numbers of tf.random.normal, and what is drawn next is the same too."""

    def drawn(cuts):
        initializer = SpareReservedRows(0.3)
        tf.keras.utils.set_random_seed(7)
        shards = [
            initializer(
                tf.TensorShape([rows, width]), tf.float32, (last - first, width), (first, 0)
            )
            for first, last in itertools.pairwise(cuts)
        ]
        return tf.concat(shards, axis=0).numpy(), tf.random.normal([3]).numpy()

    tf.keras.utils.set_random_seed(7)
    whole = tf.random.normal([rows, width], stddev=0.3).numpy()
    whole[:2] = 0.0
    following = tf.random.normal([3]).numpy()
    for cuts in ([0, rows], [0, rows // 3, rows], [0, 1, 4, rows - 1, rows]):
        shards, after = drawn(cuts)
        np.testing.assert_array_equal(shards, whole)
        np.testing.assert_array_equal(after, following)


@pytest.mark.parametrize(("rows", "width"), [(10, 4), (11, 3)])
def test_shards_of_signs_start_as_the_whole_table(rows, width):
    whole, shape = [], tf.TensorShape([rows, width])
    for cuts in ([0, rows], [0, rows // 3, rows], [0, 1, 4, rows]):
        signs = RandomSigns()
        tf.keras.utils.set_random_seed(7)
        shards = [
            signs(shape, tf.float32, (last - first, width), (first, 0))
            for first, last in itertools.pairwise(cuts)
        ]
        whole.append(np.concatenate(shards))
        np.testing.assert_array_equal(np.unique(whole[-1]), [-1.0, 1.0])
        np.testing.assert_array_equal(whole[-1], whole[0])
