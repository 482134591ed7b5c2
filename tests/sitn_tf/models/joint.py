"""Models that learn from requests of both domains: made, asked, and their gradients."""

import numpy as np
import tensorflow as tf

from sitn_tf import config, data, runs, schema
from sitn_tf.models.registry import make_scorer
from sitn_tf.training import stage2
from tests.small_dataset import MAX_HISTORY


def settings_of(*settings):
    return config.override(config.tiny(), settings)


def make(small, *settings):
    """A scorer whose weights are all away from where they start."""
    chosen = settings_of(*settings)
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    scorer = make_scorer(chosen, tables, MAX_HISTORY)
    for variable in scorer.trainable_variables:
        variable.assign_add(tf.random.stateless_normal(variable.shape, [1, 2], stddev=0.2))
    return scorer


def both(small, rows=16):
    """Target requests with source requests beside them, and these alone."""
    target, source = (
        next(iter(data.read_split(small, stage, schema.TRAIN, rows)))
        for stage in (schema.STAGE2, schema.SOURCE_REQUESTS)
    )
    return data.with_source_requests(target, source), source


def gradients(scorer, loss_of):
    """The largest entry of each weight's gradient; weights in the model's order."""
    with tf.GradientTape() as tape:
        loss = loss_of()
    found = tape.gradient(loss, scorer.trainable_variables)
    return [0.0 if g is None else np.abs(tf.convert_to_tensor(g)).max() for g in found]


def source_click(scorer, source):
    """The click loss of source requests alone."""
    logits = scorer(source, training=True, domain=schema.SOURCE)
    return stage2.mean_click_loss(logits, source, domain=schema.SOURCE)


def asked(domain, source, target, candidates=(3, 7, 2)):
    """One request for candidates of a domain by a user u1, with some padding."""
    return {
        "source_history": tf.constant([[*source, 0]], tf.int64),
        "target_history": tf.constant([[*target, 0, 0]], tf.int64),
        "user_id": tf.constant([b"u1"]),
        schema.CANDIDATES_OF_DOMAIN[domain].name: tf.constant([candidates], tf.int64),
    }
