"""What stage 1 makes of a batch before it is encoded."""

import pytest
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.models.registry import make_pretrainer
from tests.sitn_tf.models.made import made
from tests.small_dataset import MAX_HISTORY

USERS = 200


@pytest.mark.parametrize("setting", ["item_mask=0.5", "item_crop=0.5", "item_shuffle=1"])
def test_a_users_histories_are_augmented_apart(small, setting):
    """Of two that are the same, the same made of both would name the user to the contrast."""
    alone = "item_mask=0" if "mask" not in setting else "item_crop=0"
    model = made(make_pretrainer, small, f"stage1.{alone}", f"stage1.{setting}")
    same = tf.tile(tf.range(2, 2 + MAX_HISTORY, dtype=tf.int64)[None], (USERS, 1))
    batch = {history.name: same for history in schema.HISTORY_OF_DOMAIN.values()}
    batch[schema.USER_ID.name] = tf.strings.as_string(tf.range(USERS))
    prepared = model.prepare(batch, tf.constant(3, tf.int64)).histories
    source, target = (prepared[h.name].numpy() for h in schema.HISTORY_OF_DOMAIN.values())
    assert (source != same.numpy()).any(axis=1).mean() > 0.9
    # A crop of half of eight has five places: a fifth of the users have the same by chance.
    assert (source != target).any(axis=1).mean() > 0.7
