"""Processes of test_parameter_servers.py: servers, and the coordinator of one training step.

python -m tests.sitn_tf.distributed.parameter_server_step serve CLUSTER JOB TASK
python -m tests.sitn_tf.distributed.parameter_server_step step CLUSTER DATA CHECKPOINT OUTPUT
"""

import json
import pathlib
import sys

import sitn_tf  # noqa: F401  (selects Keras 2 before TensorFlow is imported)


def step(cluster: dict, data_dir: str, checkpoint: str, output: pathlib.Path) -> None:
    """Restores, trains one step on a worker, saves, and writes what was seen."""
    import tensorflow as tf

    from sitn_tf import data, schema
    from sitn_tf.distributed import parameter_servers
    from tests.click_step import make_click_step

    own = parameter_servers.Member(cluster, parameter_servers.CHIEF, 0)
    strategy = parameter_servers.make_strategy(own, shard_bytes=1)
    with strategy.scope():
        scorer, optimizer = make(data_dir)
    state = tf.train.Checkpoint(model=scorer, optimizer=optimizer)
    state.restore(checkpoint).assert_consumed()
    batch = next(iter(data.read_split(data_dir, schema.STAGE2, schema.TRAIN, 32)))
    train = tf.function(make_click_step(strategy, scorer, optimizer))
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    loss = coordinator.schedule(train, args=(batch,)).fetch()["loss"]
    saved = state.save(str(output / "trained"))
    shards = [v for items in scorer.items.values() for v in items.id_variables]
    graph = train.get_concrete_function(batch).graph
    report = {
        "loss": float(loss),
        "checkpoint": saved,
        "shards": [[v.device, v.shape[0]] for v in shards],
        "reads": sorted({op.type for v in shards for op in consumers(graph, v)}),
    }
    (output / "report.json").write_text(json.dumps(report))


def make(data_dir: str):
    """The tiny scorer and its optimizer, with all variables made."""
    from sitn_tf import config, runs, schema
    from sitn_tf.models.registry import make_scorer
    from sitn_tf.optimizers.row_sparse import RowSparseAdam

    manifest = schema.read_manifest(data_dir)
    settings = config.tiny()
    scorer = make_scorer(
        settings, runs.read_tables(data_dir, manifest, settings), manifest.max_history
    )
    optimizer = RowSparseAdam(learning_rate=0.1, row_decay=0.5)
    optimizer.build(scorer.trainable_variables)
    return scorer, optimizer


def consumers(graph, variable) -> list:
    """The operations of a graph, and of the functions it calls, that take a variable's handle."""
    captured = [inner for outer, inner in graph.captures if outer is variable.handle]
    ops = []
    for tensor in captured:
        for op in tensor.consumers():
            ops.append(op)
    return ops


def main() -> None:
    kind, cluster, *rest = sys.argv[1:]
    if kind == "serve":
        from sitn_tf.distributed import parameter_servers

        own = parameter_servers.Member(json.loads(cluster), rest[0], int(rest[1]))
        parameter_servers.serve(own)
    else:
        step(json.loads(cluster), rest[0], rest[1], pathlib.Path(rest[2]))


if __name__ == "__main__":
    main()
