"""Does L_i2c pull the encoders anywhere that L_i2i does not?

    python -m tests.benchmarks.cluster_gradients --run_dir=RUN/stage1

Cosine between both losses' gradients by the encoders, and the share of the i2c gradient's
length that is not along the i2i gradient, before training and after it, over some training
batches.
"""

import pathlib

import numpy as np
from absl import flags

from sitn_tf import cli, quiet, schema

FLAGS = flags.FlagValues()
flags.DEFINE_string("run_dir", None, "A finished stage-1 run directory.", flag_values=FLAGS)
_BATCHES = flags.DEFINE_integer("batches", 8, "That are measured.", 1, flag_values=FLAGS)


def main(_: list[str]) -> None:
    """Prints a line before and one after training."""
    run_dir = pathlib.Path(cli.require(FLAGS, "run_dir"))
    quiet.import_tensorflow()
    import tensorflow as tf

    from sitn_tf import data, trained_models
    from sitn_tf.models.registry import make_pretrainer

    run = trained_models.load_pretrainer(run_dir)
    manifest = schema.read_manifest(run.data_dir)
    fresh = make_pretrainer(run.config, run.tables, manifest.max_history)
    size = run.config.stage1.batch_size
    users = data.read_split(run.data_dir, schema.STAGE1, schema.TRAIN, size, shuffle_seed=0)
    step = tf.constant(run.config.stage1.i2c_after, tf.int64)

    def gradients(model, batch) -> list[np.ndarray]:
        with tf.GradientTape(persistent=True) as tape:
            loss = model.loss(batch, step)
        trained = model.trained_variables()
        encoders = [v for v in trained if "clusters" not in v.name]
        flat = []
        for part in (loss["i2i"], loss["i2c"]):
            by_encoder = [
                tf.convert_to_tensor(g) for g in tape.gradient(part, encoders) if g is not None
            ]
            flat.append(np.concatenate([g.numpy().ravel() for g in by_encoder]))
        return flat

    for name, model in (("before", fresh), ("after", run.model)):
        pairs = [gradients(model, batch) for batch in users.take(_BATCHES.value)]
        lengths = np.array([[np.linalg.norm(g) for g in pair] for pair in pairs])
        cosines = np.array([a @ b for a, b in pairs]) / lengths.prod(axis=1)
        across = np.sqrt(1 - cosines**2)
        print(
            f"{name} training: cosine {cosines.mean():.2f}, i2c / i2i "
            f"{(lengths[:, 1] / lengths[:, 0]).mean():.2f}, of i2c's length across i2i "
            f"{across.mean():.2f} ({len(pairs)} batches of {size} users)"
        )


if __name__ == "__main__":
    cli.run(main, FLAGS)
