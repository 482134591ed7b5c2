"""Embedding tables sharded over parameter servers: for tables that fit no single machine.

TensorFlow's own engine, `tf.distribute.ParameterServerStrategy`, holds the variables in processes
of their own; a large one is cut into ranges of rows, one a server. Item embeddings read and
update rows where they lie (`layers/embedding.py`, `optimizers/row_sparse.py`), so a step's
traffic follows the distinct items of its batch and not the vocabulary. Checkpoints are whole
tables, whatever the number of servers: a run may change it, and export needs none.

Servers and workers run `serve`; the coordinator builds model and optimizer within the scope of
`make_strategy` and schedules steps with `tf.distribute.coordinator.ClusterCoordinator`.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

Cluster = Mapping[str, Sequence[str]]
"""Addresses, "host:port", of each job: "ps" and "worker"."""

SHARD_BYTES = 1 << 20
"""A table is cut only into shards at least this large: small ones cost a server's round trip."""


def serve(cluster: Cluster, job: str, task: int) -> None:
    """Runs a parameter server or worker until its process is ended."""
    tf.distribute.Server(
        tf.train.ClusterSpec(cluster), job_name=job, task_index=task, protocol="grpc"
    ).join()


def make_strategy(
    cluster: Cluster, shard_bytes: int = SHARD_BYTES
) -> tf.distribute.experimental.ParameterServerStrategy:
    """The coordinator's strategy; waits for the servers and workers to answer.

    Args:
      shard_bytes: smallest shard of a table.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), rpc_layer="grpc"
    )
    partitioner = tf.distribute.experimental.partitioners.MinSizePartitioner(
        min_shard_bytes=shard_bytes, max_shards=len(cluster["ps"])
    )
    return tf.distribute.ParameterServerStrategy(resolver, variable_partitioner=partitioner)
