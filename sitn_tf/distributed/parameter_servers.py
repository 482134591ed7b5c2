"""Embedding tables sharded over parameter servers: for tables that fit no single machine.

TensorFlow's own engine, `tf.distribute.ParameterServerStrategy`, holds the variables in processes
of their own; a large one is cut into ranges of rows, one a server. Item embeddings read and
update rows where they lie (`layers/embedding.py`, `optimizers/row_sparse.py`), so a step's
traffic follows the distinct items of its batch and not the vocabulary. Checkpoints are whole
tables, whatever the number of servers: a run may change it, and export needs none.

TF_CONFIG says what each process is (`member`). Servers and workers `serve` until the chief ends.
The chief builds model and optimizer within the scope of `make_strategy`, reads the batches, hands
each to a worker (`Workers`), and judges and saves the model. With one worker steps follow each
other as in one process; several train side by side, each on the weights that it finds.
"""

import logging
import os
import pathlib
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from sitn_tf.data import Batch
from sitn_tf.distributed.tables import is_to_be_cut
from sitn_tf.errors import InputError, first_line

SERVER, WORKER, CHIEF = "ps", "worker", "chief"

NAMES = {SERVER: "parameter server", WORKER: "worker", CHIEF: "chief"}
"""What TF_CONFIG's task types are called."""

SHARD_BYTES = 1 << 20
"""A table is cut only into shards at least this large: small ones cost a server's round trip."""

STEPS_AHEAD = 4
"""Steps a worker that may wait for it, so that none stands idle while losses are read."""

LOOK_SECONDS = 1.0
"""Between looks at whether a process still listens."""

REFUSED_SECONDS = 3.0
"""A chief whose machine answers, but nobody at its port, has ended. It takes longer to start."""

SILENT_SECONDS = 120.0
"""A chief whose machine does not answer is given up."""


class Member(NamedTuple):
    """A process of a cluster.

    Attributes:
      cluster: addresses, "host:port", by task type: "ps", "worker" and "chief".
      job: its task type.
      task: its number among those.
    """

    cluster: Mapping[str, Sequence[str]]
    job: str
    task: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{NAMES[self.job]} {self.task} ({self.cluster[self.job][self.task]})"


def member() -> Member | None:
    """What TF_CONFIG makes this process, if it names parameter servers.

    Raises:
      InputError: it names no chief or no worker, or this process is none of the three.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    cluster = resolver.cluster_spec().as_dict()
    if SERVER not in cluster:
        return None
    for address in (address for addresses in cluster.values() for address in addresses):
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InputError(f"TF_CONFIG's address {address!r} is not host:port", "such as a:5000")
    counts = ", ".join(f"{len(addresses)} {job}" for job, addresses in cluster.items())
    if not cluster.get(WORKER) or len(cluster.get(CHIEF, ())) != 1:
        raise InputError(
            f"TF_CONFIG names {counts}",
            "beside parameter servers give one address under chief and at least one under worker",
        )
    job, task = resolver.task_type, resolver.task_id
    if job not in NAMES or task not in range(len(cluster[job])):
        raise InputError(
            f"TF_CONFIG's task is {job} {task}, of a cluster of {counts}",
            f"give a type of {', '.join(NAMES)} and an index from 0",
        )
    return Member(cluster, job, task)


def serve(own: Member) -> None:
    """Runs a parameter server or worker until the chief, which may yet have to come, has ended.

    Raises:
      InputError: its address is not free, or not of this machine.
    """
    _report_failures_at_once()
    threads = tf.compat.v1.ConfigProto(
        # With fewer, workers that wait for each other's reads could wait for ever.
        inter_op_parallelism_threads=max(os.cpu_count() or 1, len(own.cluster[WORKER]) + 1)
    )
    try:
        tf.distribute.Server(
            tf.train.ClusterSpec(own.cluster),
            job_name=own.job,
            task_index=own.task,
            protocol="grpc",
            config=threads,
        )
    except tf.errors.OpError as error:
        raise InputError(
            f"{own.name} can't serve ({first_line(error)})",
            "TF_CONFIG has to give it a free port of this machine",
        ) from error
    print(f"{own.name} serves until the chief has ended", flush=True)
    _await_end(own.cluster[CHIEF][0])
    print(f"the chief has ended: {own.name} ends too", flush=True)


def make_strategy(
    own: Member, shard_bytes: int = SHARD_BYTES
) -> tf.distribute.ParameterServerStrategy:
    """The chief's strategy; waits for the servers and workers to answer.

    Args:
      shard_bytes: smallest shard of a table.

    Raises:
      InputError: this process is not the chief, or workers have several GPUs each.
    """
    if own.job != CHIEF:
        raise InputError(
            f"TF_CONFIG makes this process {own.name}",
            "the chief trains; the others run sitn_tf.distributed.parameter_servers.serve",
        )
    _report_failures_at_once()
    tf.get_logger().addFilter(_first_lines)
    _await_all(own)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(own.cluster), task_type=CHIEF, task_id=0, rpc_layer="grpc"
    )
    by_size = tf.distribute.experimental.partitioners.MinSizePartitioner(
        min_shard_bytes=shard_bytes, max_shards=len(own.cluster[SERVER])
    )

    def shards(shape: tf.TensorShape, dtype: tf.DType) -> list[int]:
        return by_size(shape, dtype) if is_to_be_cut() else [1] * shape.rank

    strategy = tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=shards)
    if strategy.num_replicas_in_sync > 1:
        raise InputError(
            f"each worker has {strategy.num_replicas_in_sync} GPUs",
            "start a worker for every GPU, with CUDA_VISIBLE_DEVICES naming it",
        )
    return strategy


def has_servers(strategy: tf.distribute.Strategy) -> bool:
    """Whether a strategy keeps variables on parameter servers."""
    return isinstance(strategy, tf.distribute.ParameterServerStrategy)


def make_variables(call: Callable[..., Any], *inputs: Any, **options: Any) -> None:
    """Gives a model inputs, so that it makes what is left of its variables.

    The call is traced and not run where tables lie on servers: run eagerly, a lookup brings these
    here whole.
    """
    if has_servers(tf.distribute.get_strategy()):
        tf.function(call, autograph=False).get_concrete_function(*inputs, **options)
    else:
        call(*inputs, **options)


def check_shared(own: Member, directory: pathlib.Path) -> None:
    """Raises InputError unless all servers see a directory of the chief: they write checkpoints."""
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f".seen-{secrets.token_hex(8)}"
    probe.touch()
    try:
        for task in range(len(own.cluster[SERVER])):
            with tf.device(f"/job:{SERVER}/task:{task}/device:CPU:0"):
                try:
                    tf.io.read_file(str(probe))
                except tf.errors.NotFoundError as error:
                    raise InputError(
                        f"{Member(own.cluster, SERVER, task).name} does not see {directory}, where "
                        "it is to save its part of checkpoints",
                        "give a directory of a file system that chief and servers share",
                    ) from error
    finally:
        probe.unlink()


class Workers:
    """Runs steps on the workers, as many at a time as there are.

    A step whose worker fails is given to another one.

    Args:
      strategy: with parameter servers.
      graph_of: first batch → the graph of a step: batch → scalars by name.

    Attributes:
      ahead: how many steps may be under way while the losses of earlier ones are read.
      at_once: how many may read and change the weights side by side.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        graph_of: Callable[[Batch], tf.types.experimental.PolymorphicFunction],
    ) -> None:
        self._coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        devices = [device.name for device in tf.config.list_logical_devices("CPU")]
        self.at_once = sum(f"/job:{WORKER}/" in name for name in devices)
        self.ahead = STEPS_AHEAD * self.at_once
        self._graph_of = graph_of
        self._graph: tf.types.experimental.PolymorphicFunction | None = None

    def __call__(self, batch: Batch) -> Callable[[], dict[str, float]]:
        """Hands a batch to the next worker that is free → what waits for its step's values."""
        if self._graph is None:
            self._graph = self._graph_of(batch)
        step = self._coordinator.schedule(self._graph, args=(batch,))

        def values() -> dict[str, float]:
            try:
                fetched = step.fetch()
            except tf.errors.CancelledError:
                # Another step's error has cancelled this one; that error is the one to tell.
                self._coordinator.join()
                raise
            return {name: float(value) for name, value in fetched.items()}

        return values


_REMOTE_SERVER = re.compile(rf"/job:{SERVER}/replica:0/task:(\d+)")
_STALE = ("unknown device", "remote_handle", "context_id")
"""In errors of a server that was started again, so that its variables are gone."""


def lost_server(own: Member, error: tf.errors.OpError) -> InputError | None:
    """What to say of an error that comes from a parameter server's end; None of other errors."""
    gone = isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError)
    stale = any(word in str(error) for word in _STALE)
    named = _REMOTE_SERVER.search(str(error))
    if named is None or not (gone or stale):
        return None
    task = int(named[1])
    return InputError(
        f"{Member(own.cluster, SERVER, task).name} has ended, and its part of the tables with it",
        "start all processes again with their command: training goes on from the last checkpoint",
    )


def _report_failures_at_once() -> None:
    # Without it gRPC waits for a process that has ended to come back.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")


def _first_lines(record: logging.LogRecord) -> bool:
    """Cuts what TensorFlow logs of a process that ended, hundreds of lines, to one each time."""
    record.msg, record.args = record.getMessage().partition("\n")[0], ()
    return True


def _await_all(own: Member) -> None:
    """Returns when every server and worker listens; says for whom it waits."""
    missing = [
        Member(own.cluster, job, task)
        for job in (SERVER, WORKER)
        for task in range(len(own.cluster[job]))
    ]
    told = False
    while True:
        missing = [m for m in missing if _state(m.cluster[m.job][m.task]) != "listening"]
        if not missing:
            return
        if not told:
            print(f"waiting for {', '.join(m.name for m in missing)}", flush=True)
            told = True
        time.sleep(LOOK_SECONDS)


def _await_end(address: str) -> None:
    """Returns when the process at an address, which may yet have to come, has ended."""
    heard = None
    while True:
        state, now = _state(address), time.monotonic()
        if state == "listening":
            heard = now
        elif heard is not None:
            patience = REFUSED_SECONDS if state == "refused" else SILENT_SECONDS
            if now - heard > patience:
                return
        time.sleep(LOOK_SECONDS)


def _state(address: str) -> Literal["listening", "refused", "silent"]:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5.0):
            return "listening"
    except ConnectionRefusedError:
        return "refused"
    except OSError:
        return "silent"
