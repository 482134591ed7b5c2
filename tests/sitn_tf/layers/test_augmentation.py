import numpy as np
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from sitn_tf.layers.augmentation import Draw, augment, crop, hide_items, shuffled
from sitn_tf.sections import Stage1Config

USERS = 64


def _draw(step=3, users=USERS, history=0):
    user = tf.range(users, dtype=tf.int64) * 7919
    return Draw(user, tf.constant(step, tf.int64), seed=1, history=history)


def _part(draw, rows):
    return Draw(draw.user[rows], draw.step, draw.seed, draw.history)


def _shuffle(history, draw, reach):
    return tf.gather(history, shuffled(history, draw, reach), batch_dims=1).numpy()


def _histories(width=8):
    """Lengths 0 to `width`, the real ids 1, 2, … first."""
    length = np.arange(USERS) % (width + 1)
    ids = np.tile(np.arange(1, width + 1), (USERS, 1))
    return tf.constant(ids * (np.arange(width) < length[:, None]))


def test_hiding_items_keeps_each_history_and_does_not_depend_on_the_batch():
    history, draw = _histories(), _draw()
    hidden = hide_items(history, draw, 0.5).numpy()
    assert (np.isin(hidden, 0) | (hidden == history.numpy())).all()
    assert ((hidden != 0).any(axis=1) == (history.numpy() != 0).any(axis=1)).all()
    kept = (hidden != 0).sum() / (history.numpy() != 0).sum()
    assert 0.4 < kept < 0.65
    rows = slice(10, 20)
    np.testing.assert_array_equal(hide_items(history[rows], _part(draw, rows), 0.5), hidden[rows])
    assert (hide_items(history, _draw(step=4), 0.5).numpy() != hidden).any()
    np.testing.assert_array_equal(hide_items(history, draw, 0.0), history)


def test_what_is_drawn_of_one_history_says_nothing_of_the_other():
    """Or how many items are hidden would tell the contrast which instances are one user's."""
    full = tf.tile(tf.range(1, 41, dtype=tf.int64)[None], (2000, 1))
    draws = [_draw(users=2000, history=history) for history in (0, 1)]
    hidden = [(hide_items(full, draw, 0.3) == 0).numpy() for draw in draws]
    np.testing.assert_allclose(np.mean(hidden[0] & hidden[1]), 0.3 * 0.3, atol=0.01)
    places = [[h.sum(axis=1) for h in hidden]]
    places.append([np.argmax(crop(full, draw, 0.5), axis=1) for draw in draws])
    places.append([np.argmin(shuffled(full, draw, 0.5), axis=1) for draw in draws])
    for of_first, of_second in places:
        assert of_first.std() > 0
        assert abs(np.corrcoef(of_first, of_second)[0, 1]) < 0.1  # four of its sd by chance


def test_almost_everything_hidden_leaves_the_history_as_it_is():
    history = tf.constant([[4, 5, 0]], tf.int64)
    np.testing.assert_array_equal(hide_items(history, _draw(users=1), 0.9999999), history)


@given(st.floats(0.05, 0.95), st.integers(0, 1000))
def test_a_crop_is_one_stretch_of_the_stated_length(share, step):
    history = _histories().numpy()
    cut = crop(tf.constant(history), _draw(step), share).numpy()
    for before, after in zip(history, cut, strict=True):
        length = int((before != 0).sum())
        if not length:
            assert not after.any()
            continue
        kept = after[after != 0]
        # float32 as in the graph: 10 * (1 - 0.1) is a hair over 9 there.
        expected = max(int(np.ceil(np.float32(length) * np.float32(1.0 - share))), 1)
        assert len(kept) == expected
        np.testing.assert_array_equal(kept, np.arange(kept[0], kept[0] + len(kept)))


def test_crops_start_everywhere():
    history = tf.constant(np.tile(np.arange(1, 9), (USERS, 1)))
    starts = {int(row[row != 0][0]) for row in crop(history, _draw(), 0.5).numpy()}
    assert starts == {1, 2, 3, 4, 5}


@given(st.floats(0.0, 1.0), st.integers(0, 1000))
def test_a_shuffle_permutes_the_real_items_and_keeps_them_first(reach, step):
    history = _histories().numpy()
    mixed = _shuffle(tf.constant(history), _draw(step), reach)
    np.testing.assert_array_equal(mixed == 0, history == 0)
    np.testing.assert_array_equal(np.sort(mixed, axis=1), np.sort(history, axis=1))


def test_reach_says_how_far_items_move():
    history = tf.constant(np.tile(np.arange(1, 101), (USERS, 1)))
    moved = [
        np.abs(_shuffle(history, _draw(), reach) - history.numpy()).mean()
        for reach in (0.0, 0.1, 1.0)
    ]
    # A random permutation of 100 moves an item by a third of that on average.
    assert moved[0] == 0.0
    assert 1.0 < moved[1] < 8.0
    assert 28.0 < moved[2] < 38.0


def test_pairs_change_places_that_are_nearer_than_reach_allows():
    """0.3 / 0.7 = 0.43 of the 100 items; some that are more than 30 apart do."""
    mixed = _shuffle(tf.constant(np.tile(np.arange(1, 101), (USERS, 1))), _draw(), 0.3)
    before = mixed[:, :, None] - mixed[:, None, :]  # of the items at two places: how far apart
    farthest = np.triu(before).max()
    assert 30 < farthest <= 42
    assert "reach / (1 - reach)" in shuffled.__doc__


def test_the_time_of_a_click_stays_with_its_id():
    history, draw = _histories(), _draw()
    settings = Stage1Config(item_crop=0.3, item_shuffle=0.5, item_mask=0.2)
    ids, times = augment(history, 1000 * history, draw, settings)
    np.testing.assert_array_equal(times, 1000 * ids)
    assert (np.diff(ids.numpy(), axis=1) < 0).any(axis=1).sum() > USERS // 2  # they have moved
    alone, none = augment(history, None, draw, settings)
    np.testing.assert_array_equal(alone, ids)
    assert none is None
    kept = crop(history, draw, 0.3)
    kept = hide_items(_shuffle(kept, draw, 0.5), draw, 0.2)
    np.testing.assert_array_equal(ids, kept)


def test_the_three_augmentations_draw_apart():
    draw = _draw()
    numbers = [draw.uniform(purpose, 8).numpy() for purpose in range(3)]
    correlations = np.corrcoef([n.ravel() for n in numbers])
    assert np.abs(correlations - np.eye(3)).max() < 0.2
    assert all(0.4 < n.mean() < 0.6 for n in numbers)
