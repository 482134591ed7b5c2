"""What every model learns of clicks that follow a rule, and what it cannot see."""

import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config, data, runs, schema, sections
from sitn_tf.models.registry import SCORERS, make_scorer
from tests.click_step import assert_every_weight_has_a_gradient, train_by_heart

SEES_ORDER = ("sitn", "semi", "dien", "clsr")
"""Models that tell a history from the same items in another order."""
SEES_SOURCE = tuple(name for name in SCORERS if name not in sections.SINGLE_DOMAIN)

ROWS = 16
FIRST = np.arange(ROWS) % 2 == 0


def _make(small, name, *settings):
    chosen = config.override(config.tiny(), [f"model.name={name}", *settings])
    tables = runs.read_tables(small, schema.read_manifest(small), chosen)
    tf.keras.utils.set_random_seed(3)
    return make_scorer(chosen, tables, 8)


def _batch(source, target, candidates):
    """Requests of one user each, who clicks the first candidate in every other one."""
    ids = {"source_history": source, "target_history": target, "candidates": candidates}
    return {name: tf.constant(value, tf.int64) for name, value in ids.items()} | {
        "labels": tf.constant(np.stack([FIRST, ~FIRST], axis=1), tf.int64),
        "user_id": tf.constant(["u1"] * ROWS),
    }


def _by_order():
    """Item 4 is clicked after 2 then 3, item 5 after 3 then 2."""
    histories = np.where(FIRST[:, None], [6, 2, 3], [6, 3, 2])
    return _batch(np.zeros([ROWS, 1]), histories, np.tile([4, 5], (ROWS, 1)))


def _by_source():
    """Item 7 is clicked after source item 4, item 8 after source item 5."""
    histories = np.where(FIRST, 4, 5)[:, None]
    return _batch(histories, np.tile([6, 2, 3], (ROWS, 1)), np.tile([7, 8], (ROWS, 1)))


def _margin(scorer, batch):
    """How much higher the clicked candidate of each request is scored, `[R]`."""
    logits = scorer(batch).numpy()
    return np.where(FIRST, 1.0, -1.0) * (logits[:, 0] - logits[:, 1])


@pytest.mark.parametrize("name", SCORERS)
def test_it_learns_the_rule_that_it_sees_and_no_other(small, name):
    own = ("joint.source_weight=0",) if SCORERS[name].learns_source else ()
    scorer = _make(small, name, *own)
    rules = {"order": (_by_order(), SEES_ORDER), "source": (_by_source(), SEES_SOURCE)}
    batches = [batch for batch, _ in rules.values()]
    both = {key: tf.concat([batch[key] for batch in batches], axis=0) for key in batches[0]}
    if scorer.learns_source:
        asked = next(iter(data.read_split(small, schema.SOURCE_REQUESTS, schema.TRAIN, 4)))
        both = data.with_source_requests(both, asked)
    train_by_heart(scorer, both)
    for rule, (batch, seen_by) in rules.items():
        margin = _margin(scorer, batch)
        if name in seen_by:
            assert (margin > 1.0).all(), rule
        else:  # one score for both kinds of request
            np.testing.assert_allclose(margin[::2], -margin[1::2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCORERS)
def test_every_weight_has_a_gradient(small, name):
    scorer = _make(small, name, "model.request_features=hour,weekday,user")
    for number, weight in enumerate(scorer.trainable_variables):
        weight.assign_add(tf.random.stateless_normal(weight.shape, [number, 1], stddev=0.1))
    batch = next(iter(data.read_split(small, schema.STAGE2, schema.TRAIN, 64)))
    if scorer.learns_source:
        asked = next(iter(data.read_split(small, schema.SOURCE_REQUESTS, schema.TRAIN, 64)))
        batch = data.with_source_requests(batch, asked)
    assert_every_weight_has_a_gradient(scorer, batch)
