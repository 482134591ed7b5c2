"""Replicas: the strategy, and the gather that makes the contrast global.

Under a strategy each replica holds a part of the global batch. `gather_rows` gives every
replica all rows, differentiably, and tells it which are its own; a replica's loss is the
sum over its own rows divided by the global number, so that the sum of the replicas'
gradients is the gradient of one big batch.
"""

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from sitn_tf.distributed import parameter_servers
from sitn_tf.errors import InputError, first_line

Gradient: TypeAlias = tf.Tensor | tf.IndexedSlices


def make_strategy(replicas: int = 0) -> tf.distribute.Strategy:
    """MirroredStrategy over the GPUs, or over logical CPU devices where there is no GPU.

    Where the environment variable TF_CONFIG names several workers, this process is one of
    them: MultiWorkerMirroredStrategy over all their devices. Where it names parameter servers,
    this process is their chief: ParameterServerStrategy.

    Args:
      replicas: how many; 0 for all GPUs, or one on the CPU.

    Raises:
      InputError: more replicas than GPUs, `replicas` beside TF_CONFIG, or another process than
        the chief of parameter servers.
    """
    own = parameter_servers.member()
    if own is not None:
        if replicas:
            raise InputError(f"replicas={replicas}: with TF_CONFIG each worker is one")
        return parameter_servers.make_strategy(own)
    if _several_workers():
        if replicas:
            raise InputError(f"replicas={replicas}: with TF_CONFIG each worker uses all it has")
        return _worker_strategy()
    # Listing physical devices, unlike logical ones, leaves room to split the CPU.
    if tf.config.list_physical_devices("GPU"):
        gpus = tf.config.list_logical_devices("GPU")
        if replicas > len(gpus):
            raise InputError(f"replicas={replicas}: this machine has {len(gpus)} GPUs")
        chosen = [d.name for d in gpus[: replicas or None]]
        return tf.distribute.MirroredStrategy(chosen, tf.distribute.NcclAllReduce())
    replicas = replicas or 1
    if replicas > 1:
        split_cpu(replicas)
    devices = tf.config.list_logical_devices("CPU")[:replicas]
    return cpu_strategy([device.name for device in devices])


def _several_workers() -> bool:
    cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver().cluster_spec()
    return len(cluster.as_dict().get("worker", [])) > 1


def _worker_strategy() -> tf.distribute.MultiWorkerMirroredStrategy:
    # Rings of TensorFlow's own: unlike NCCL they take CPUs too, and shapes that change from
    # step to step.
    kind = tf.distribute.experimental.CommunicationImplementation
    chosen = kind.NCCL if tf.config.list_physical_devices("GPU") else kind.RING
    return tf.distribute.MultiWorkerMirroredStrategy(
        communication_options=tf.distribute.experimental.CommunicationOptions(implementation=chosen)
    )


_CAUSE = re.compile(r"Collective ops is aborted by: (.*)")


def lost_worker(error: tf.errors.OpError) -> InputError | None:
    """What to say of an error that comes from another worker's end; None of other errors.

    Collective operations that failed once fail for good: only new processes can go on.
    """
    lost = tf.errors.UnavailableError | tf.errors.AbortedError | tf.errors.CancelledError
    if not _several_workers() or not isinstance(error, lost):
        return None
    cause = _CAUSE.search(str(error))
    return InputError(
        f"another worker has ended ({cause[1] if cause else first_line(error)})",
        "start all workers again with their command: training goes on from the last checkpoint",
    )


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process writes the run directory: of several workers only the first does."""
    resolver = strategy.cluster_resolver
    return resolver is None or not resolver.cluster_spec().as_dict() or resolver.task_id == 0


def cpu_strategy(devices: Sequence[str]) -> tf.distribute.MirroredStrategy:
    """MirroredStrategy over logical CPU devices.

    The reduction is named because the default one, by collective ops, remembers the shapes
    of its first call and fails on the next batch of another size.
    """
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice())


def split_cpu(devices: int) -> None:
    """Makes `devices` logical devices of the CPU; must come before TensorFlow's first op.

    Raises:
      InputError: TensorFlow is already running with fewer devices.
    """
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        made = tf.config.get_logical_device_configuration(cpu)
        if not made or len(made) < devices:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration() for _ in range(devices)]
            )
    except RuntimeError as error:
        raise InputError(f"replicas={devices}: TensorFlow was started with fewer") from error


def split_rows(
    strategy: tf.distribute.Strategy,
    batch: dict[str, tf.Tensor],
    sizes: Sequence[int] | None = None,
) -> Any:
    """Gives each replica its rows of a global batch.

    Batches are split here and not by `experimental_distribute_dataset`, whose iterator in
    TensorFlow 2.21 sleeps for doubling times and holds up the end of each pass until it wakes:
    a pass of 21 s took 41 s.

    Args:
      batch: tensors of N rows each; without `sizes` each may have a number of its own.
      sizes: rows of each replica, summing to N; as even as possible if None.

    Returns:
      What `strategy.run` takes: the batch itself for one replica.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batch
    slices = {rows: _slices(rows, replicas, sizes) for rows in set(map(len, batch.values()))}

    def part(context: tf.distribute.ReplicaContext) -> dict[str, tf.Tensor]:
        r = context.replica_id_in_sync_group
        return {name: value[slices[len(value)][r]] for name, value in batch.items()}

    return strategy.experimental_distribute_values_from_function(part)


def _slices(rows: int, replicas: int, sizes: Sequence[int] | None) -> list[slice]:
    """Each replica's rows: of `sizes`, or as even as possible."""
    if sizes is None:
        sizes = [rows // replicas + (r < rows % replicas) for r in range(replicas)]
    if sum(sizes) != rows:
        raise ValueError(f"sizes={sizes} do not sum to the batch's {rows} rows")
    ends = itertools.accumulate(sizes)
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _others() -> tf.distribute.ReplicaContext | None:
    """The context of a replica that is not the only one."""
    context = tf.distribute.get_replica_context()
    return None if context is None or context.num_replicas_in_sync == 1 else context


def gather_rows(tensors: Sequence[tf.Tensor]) -> tuple[list[tf.Tensor], tf.Tensor]:
    """Concatenates each tensor's rows over the replicas, in the replicas' order.

    Args:
      tensors: each `[n, ...]`, n the same for all of them in a replica but not
        necessarily across replicas.

    Returns:
      Each `[N, ...]`, and `[n]` int32: the positions of this replica's own rows.
    """
    rows = tf.shape(tensors[0])[0]
    context = _others()
    if context is None:
        return list(tensors), tf.range(rows)
    counts = context.all_gather(rows[None], axis=0)
    first = tf.reduce_sum(counts[: context.replica_id_in_sync_group])
    widest = tf.reduce_max(counts)
    replicas = context.num_replicas_in_sync

    def gather(tensor: tf.Tensor) -> tf.Tensor:
        # Collectives want the same shape of every replica, so short parts are padded.
        room = [[0, widest - rows]] + [[0, 0]] * (tensor.shape.rank - 1)
        parts = tf.split(context.all_gather(tf.pad(tensor, room), axis=0), replicas)
        return tf.concat([part[: counts[r]] for r, part in enumerate(parts)], axis=0)

    return [gather(tensor) for tensor in tensors], first + tf.range(rows)


def sum_gradients(gradients: Sequence[Gradient | None]) -> list[Gradient | None]:
    """Each gradient summed over the replicas; sparse ones may touch different rows in each.

    A variable without a gradient has none on any replica.
    """
    context = _others()
    if context is None:
        return list(gradients)

    def total(gradient: Gradient | None) -> Gradient | None:
        if gradient is None:
            return None
        if not isinstance(gradient, tf.IndexedSlices):
            return context.all_reduce(tf.distribute.ReduceOp.SUM, gradient)
        (indices, values), _ = gather_rows([gradient.indices, gradient.values])
        return tf.IndexedSlices(values, indices, gradient.dense_shape)

    return [total(gradient) for gradient in gradients]


def global_sum(value: tf.Tensor) -> tf.Tensor:
    """The sum of a scalar over the replicas, without a gradient."""
    return tf.stop_gradient(sum_over_replicas(value))


def sum_over_replicas(value: tf.Tensor) -> tf.Tensor:
    """A tensor summed over the replicas, with its gradient: that of the sum of their losses."""
    context = _others()
    return value if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def separate_replicas(variables: Iterable[tf.Variable]) -> None:
    """Gives each replica of a new variable memory of its own, before the first step.

    TensorFlow lets them share what they start from. If their first updates copy it, side by
    side, the shared one stays for good: 984 MB for two replicas of 320 MB. A sparse read
    outside a graph copies it once, in time.
    """
    for variable in variables:
        if isinstance(variable, tf.distribute.DistributedValues) and variable.shape.rank:
            for replica in variable.values:
                replica.sparse_read(tf.zeros([1], tf.int64))
