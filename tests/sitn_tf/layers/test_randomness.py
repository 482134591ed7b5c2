import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from sitn_tf import config, runs, schema
from sitn_tf.distributed.replicas import cpu_strategy
from sitn_tf.layers import randomness
from sitn_tf.layers.dropout import Dropout, number_layers
from sitn_tf.models.registry import SCORERS, make_pretrainer, make_scorer
from sitn_tf.models.scorer import Scorer
from sitn_tf.studies.search_spaces import SEARCH_SPACES
from tests.small_dataset import write_small_dataset


def _draw(seed, step, number):
    with randomness.at_step(seed, tf.constant(step, tf.int64)):
        return randomness.uniform(tf.constant([1000]), number).numpy()


def test_numbers_follow_from_seed_step_and_who_draws():
    np.testing.assert_array_equal(_draw(3, 5, 2), _draw(3, 5, 2))
    for other in ((3, 5, 1), (3, 6, 2), (4, 5, 2), (3, 2, 5), (5, 3, 2)):
        assert abs(np.corrcoef(_draw(3, 5, 2), _draw(*other))[0, 1]) < 0.15
    assert abs(_draw(0, 0, 0).mean() - 0.5) < 0.05


def test_replicas_draw_different_numbers(two_cpus):
    strategy = cpu_strategy(two_cpus)

    @tf.function
    def draw():
        with randomness.at_step(1, tf.constant(2)):
            return randomness.uniform(tf.constant([100]), 0)

    first, second = strategy.run(draw).values
    assert np.abs(first.numpy() - second.numpy()).max() > 0.1


def test_dropout_keeps_the_mean_and_the_step_decides():
    layer = Dropout(0.25)
    ones = tf.ones([100, 100])

    def outputs(step):
        with randomness.at_step(0, tf.constant(step)):
            return layer(ones, training=True).numpy()

    assert set(np.unique(outputs(1))) == {0.0, np.float32(1 / 0.75)}
    assert abs(outputs(1).mean() - 1) < 0.05
    np.testing.assert_array_equal(outputs(1), outputs(1))
    assert (outputs(1) != outputs(2)).any()
    np.testing.assert_array_equal(layer(ones), ones)
    assert layer.get_config()["rate"] == 0.25
    with pytest.raises(ValueError, match=r"rate=1 is not in \[0, 1\)"):
        Dropout(1)


def test_no_layer_keeps_random_state_that_no_checkpoint_holds(tmp_path):
    data_dir = write_small_dataset(tmp_path)
    manifest = schema.read_manifest(data_dir)
    settings = config.override(config.tiny(), ["model.dropout=0.5", "mlp.widths=16,8"])
    tables = runs.read_tables(data_dir, manifest, settings)
    models = [make_pretrainer(settings, tables, manifest.max_history)]
    for name in SCORERS:
        named = config.override(settings, [f"model.name={name}"])
        models.append(make_scorer(named, tables, manifest.max_history))
    stateful = type(tf_keras.layers.Dropout(0.5)).__mro__[1]
    assert stateful.__name__ == "BaseRandomLayer"
    for model in models:
        number_layers(model)
        layers = [part for part in model.submodules if isinstance(part, Dropout)]
        assert sorted(layer.number for layer in layers) == list(range(len(layers)))
        searched = isinstance(model, Scorer) and SEARCH_SPACES[model.config.model.name]
        assert len(layers) >= 2 if not searched or "model.dropout" in searched else not layers
        assert not [part for part in model.submodules if isinstance(part, stateful)]


def _chosen(keys, step=5, number=0, share=0.3):
    with randomness.at_step(3, tf.constant(step, tf.int64)):
        return randomness.chosen(tf.constant(keys, tf.int64), number, share).numpy()


def test_a_key_is_chosen_or_not_wherever_it_stands():
    keys = np.arange(5000)
    chosen = _chosen(keys)
    assert abs(chosen.mean() - 0.3) < 0.02
    np.testing.assert_array_equal(
        _chosen(keys[::-1].reshape(50, 100)), chosen[::-1].reshape(50, 100)
    )
    for other in (_chosen(keys, step=6), _chosen(keys, number=1)):
        assert abs(np.corrcoef(chosen, other)[0, 1]) < 0.05


def test_no_key_is_chosen_outside_of_a_step():
    assert not randomness.chosen(tf.range(1000, dtype=tf.int64), 0, 0.9).numpy().any()
