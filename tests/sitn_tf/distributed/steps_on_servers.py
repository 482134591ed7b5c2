"""Some steps of models on two parameter servers and a worker, all in this process.

python -m tests.sitn_tf.distributed.steps_on_servers DATA_DIR OUTPUT SETTING,SETTING ...

For each list of settings, the losses and weights of ten_steps.Trial: OUTPUT/<number>.npz.
"""

import os
import pathlib
import sys

import numpy as np
import tensorflow as tf

from sitn_tf import config
from sitn_tf.distributed import parameter_servers
from sitn_tf.training import steps
from tests.ports import free_ports
from tests.sitn_tf.distributed import ten_steps


def main() -> None:
    data_dir, output, *choices = sys.argv[1:]
    ports = free_ports(4)
    addresses = [f"127.0.0.1:{port}" for port in ports]
    cluster = {"chief": addresses[:1], "ps": addresses[1:3], "worker": addresses[3:]}
    threads = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=4)
    servers = [
        tf.distribute.Server(
            tf.train.ClusterSpec(cluster), job, task, protocol="grpc", config=threads
        )
        for job in ("ps", "worker")
        for task in range(len(cluster[job]))
    ]
    own = parameter_servers.Member(cluster, "chief", 0)
    strategy = parameter_servers.make_strategy(own, shard_bytes=1)
    for number, choice in enumerate(choices):
        stage, settings = of(choice)
        trial = ten_steps.Trial(pathlib.Path(data_dir), stage, strategy, settings)
        batches = ten_steps.read_batches(pathlib.Path(data_dir), stage, settings)[:3]
        variables = trial.model.trainable_variables
        step = steps.make_step(
            strategy, variables, trial.optimizer, trial.losses, trial.gradients_of
        )
        run = steps.runner(strategy, step)
        losses = [run(batch)()["loss"] for batch in batches]
        named = {f"weight_{i}": w for i, w in enumerate(whole(variables))}
        np.savez(pathlib.Path(output) / f"{number}.npz", losses=losses, **named)
    print(f"{len(servers)} servers took {len(choices)} models' steps", flush=True)
    # TensorFlow can't end servers of its own process.
    os._exit(0)


def whole(variables) -> list[np.ndarray]:
    """The values of variables, those of a table's shards as one array."""
    tables = {}
    for variable in variables:
        shards = getattr(variable, "_sharded_container", lambda own=variable: own)()
        tables[id(shards)] = shards
    return [tf.convert_to_tensor(table).numpy() for table in tables.values()]


def of(choice: str) -> tuple[str, config.Config]:
    """A stage and settings of it, as in stage2,model.name=fm."""
    stage, *settings = choice.split(",")
    return stage, config.override(ten_steps.settings(), settings)


if __name__ == "__main__":
    main()
