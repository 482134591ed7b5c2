"""Ten training steps of either stage under any strategy, from the same weights and batches."""

import contextlib
import dataclasses

import numpy as np
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.distributed.replicas import split_rows
from sitn_tf.models.registry import SCORERS, make_pretrainer, make_scorer
from sitn_tf.optimizers.row_sparse import RowSparseAdam
from sitn_tf.training import stage1, stage2, steps

STEPS = 10
ROWS = 11


def read_batches(small, stage, chosen=None):
    """Some whole batches; of a model that learns from both domains, with source requests."""
    batches = data.read_split(small, stage, schema.TRAIN, ROWS, shuffle_seed=5).repeat()
    whole = batches.filter(lambda batch: tf.shape(batch["user_id"])[0] == ROWS)
    read = list(whole.take(STEPS))
    if stage == schema.STAGE2 and chosen and SCORERS[chosen.model.name].learns_source:
        asked = read_batches(small, schema.SOURCE_REQUESTS)
        return list(map(data.with_source_requests, read, asked))
    return read


def settings(**contrast):
    tiny = config.tiny()
    changed = dataclasses.replace(tiny.contrast, granularities=(4,), **contrast)
    return dataclasses.replace(tiny, contrast=changed)


class Trial:
    """A model under a strategy, from the same weights whatever the number of replicas."""

    def __init__(self, small, stage, strategy, chosen=None):
        chosen = chosen or settings()
        manifest = schema.read_manifest(small)
        tables = runs.read_tables(small, manifest, chosen)
        self.strategy = strategy
        tf.keras.utils.set_random_seed(1)
        with strategy.scope():
            if stage == schema.STAGE1:
                self.model = make_pretrainer(chosen, tables, manifest.max_history)
            else:
                self.model = make_scorer(chosen, tables, manifest.max_history)
            self.optimizer = RowSparseAdam(learning_rate=0.01, epsilon=1e-3)
            self.optimizer.build(self.model.trainable_variables)
        self.stage = stage
        self.gradients_of = self.cached if chosen.stage1.micro_batches > 1 else None
        self._gradients = tf.function(self._run, reduce_retracing=True, autograph=False)

    def losses(self, batch, step):
        if self.stage == schema.STAGE1:
            return self.model.loss(batch, step)
        return stage2.scorer_losses(self.model, batch)

    def cached(self, batch, step):
        variables = self.model.trainable_variables
        return stage1.micro_batch_gradients(self.model, batch, step, variables)

    def _run(self, batch):
        def on_replica(part):
            step = tf.constant(0, tf.int64)
            if self.gradients_of is not None:
                losses, gradients = self.gradients_of(part, step)
            else:
                with tf.GradientTape() as tape:
                    losses = self.losses(part, step)
                gradients = tape.gradient(losses["loss"], self.model.trainable_variables)
            return [losses["loss"], *(tf.convert_to_tensor(g) for g in gradients if g is not None)]

        return self.strategy.run(on_replica, args=(batch,))

    def loss_and_gradients(self, batch, sizes):
        """The global loss, then the gradients of the weights: those of the replicas, summed."""
        with _plain_graphs():
            per_replica = self._gradients(split_rows(self.strategy, batch, sizes))
        return [self.strategy.reduce("SUM", value, axis=None).numpy() for value in per_replica]

    def train(self, batches, sizes=None):
        """The losses of the steps, and the weights after them."""
        step = steps.traced_once(
            steps.make_step(
                self.strategy,
                self.model.trainable_variables,
                self.optimizer,
                self.losses,
                self.gradients_of,
            )
        )
        with _plain_graphs():
            losses = [float(step(split_rows(self.strategy, b, sizes))["loss"]) for b in batches]
        weights = [tf.convert_to_tensor(v).numpy() for v in self.model.trainable_variables]
        return np.array(losses), weights


@contextlib.contextmanager
def _plain_graphs():
    """Graphs that run ten times only are not rewritten: that takes a quarter of the time."""
    before = tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": before})


def assert_same(one, other):
    """Within 3e-5 of the largest value of each array: normalising what is near 0 magnifies."""
    for a, b in zip(one, other, strict=True):
        scale = max(np.abs(np.asarray(a)).max(), 1e-6)
        worst = np.abs(np.asarray(a) - np.asarray(b)).max() / scale
        assert worst <= 3e-5, worst
