import numpy as np
import pytest
import tensorflow as tf

from sitn_tf import config
from sitn_tf.distributed import tables
from sitn_tf.distributed.replicas import cpu_strategy, sum_gradients
from sitn_tf.optimizers.clipping import with_distinct_rows
from sitn_tf.optimizers.row_sparse import RowSparseAdam, RowWiseAdagrad, make_optimizer


def _adam_loop(rows, gradients, rate, decay=0.0, beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    """Adam on some rows by the book: bias-corrected moments, one gradient a step."""
    m, v = np.zeros_like(rows), np.zeros_like(rows)
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        corrected = rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t)
        rows = rows - corrected * m / (np.sqrt(v) + epsilon) - rate * decay * rows
    return rows


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_touched_rows_follow_adam_and_the_others_stay(decay):
    start = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    table = tf.Variable(start)
    optimizer = RowSparseAdam(learning_rate=0.05, row_decay=decay)
    optimizer.build([table])
    gradients = [np.full((2, 3), value, np.float32) for value in (1.0, -0.5, 0.25)]
    for g in gradients:
        optimizer.apply_gradients([(tf.IndexedSlices(g, tf.constant([4, 1]), (6, 3)), table)])
    expected = start.copy()
    expected[[4, 1]] = _adam_loop(start[[4, 1]], gradients, 0.05, decay)
    np.testing.assert_allclose(table, expected, rtol=1e-4)


def test_a_row_named_twice_gets_the_sum():
    twice, once = tf.Variable(tf.zeros([3, 1])), tf.Variable(tf.zeros([3, 1]))
    for table, slices in (
        (twice, tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([1, 1]), (3, 1))),
        (once, tf.IndexedSlices(tf.constant([[3.0]]), tf.constant([1]), (3, 1))),
    ):
        optimizer = RowSparseAdam(learning_rate=0.1)
        optimizer.build([table])
        optimizer.apply_gradients([(slices, table)])
    np.testing.assert_allclose(twice, once)


def test_dense_variables_follow_adam():
    start = np.ones((2, 2), np.float32)
    kernel = tf.Variable(start)
    optimizer = RowSparseAdam(learning_rate=0.05, row_decay=0.5)
    optimizer.build([kernel])
    for _ in range(3):
        optimizer.apply_gradients([(tf.constant([[1.0, 2.0], [3.0, 4.0]]), kernel)])
    gradients = [np.array([[1.0, 2.0], [3.0, 4.0]])] * 3
    np.testing.assert_allclose(kernel, _adam_loop(start, gradients, 0.05), rtol=1e-4)


def _adagrad_loop(rows, gradients, rate, row_wise, decay=0.0, start=0.0, epsilon=1e-12):
    """Adagrad by the book: sums of squares an element, or of mean squares a row."""
    total = np.full(rows.shape, start)
    for g in gradients:
        squares = np.square(g)
        total = total + (squares.mean(axis=1, keepdims=True) if row_wise else squares)
        rows = rows - rate * (g / np.sqrt(total + epsilon) + decay * rows)
    return rows


def _table(values, slots="by_row"):
    return tables.mark(tf.Variable(values), slots)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("slots", ["by_row", "by_element"])
def test_adagrad_changes_touched_rows_only(slots, decay):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    table = _table(start, slots)
    optimizer = RowWiseAdagrad(learning_rate=0.05, row_decay=decay)
    optimizer.build([table])
    gradients = [rng.normal(size=(2, 3)).astype(np.float32) for _ in range(3)]
    for g in gradients:
        optimizer.apply_gradients([(tf.IndexedSlices(g, tf.constant([4, 1]), (6, 3)), table)])
    expected = start.copy()
    row_wise = slots == "by_row"
    expected[[4, 1]] = _adagrad_loop(start[[4, 1]], gradients, 0.05, row_wise, decay)
    np.testing.assert_allclose(table, expected, rtol=1e-4)


@pytest.mark.parametrize("slots", ["by_row", "by_element"])
def test_adagrad_of_a_dense_gradient(slots):
    start = np.ones((2, 2), np.float32)
    weights = _table(start, slots)
    optimizer = RowWiseAdagrad(learning_rate=0.05)
    optimizer.build([weights])
    gradients = [np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)] * 3
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(g), weights)])
    row_wise = slots == "by_row"
    np.testing.assert_allclose(weights, _adagrad_loop(start, gradients, 0.05, row_wise), rtol=1e-4)


@pytest.mark.parametrize("slots", ["by_row", "by_element"])
def test_adagrad_moves_as_far_for_a_mean_as_for_a_sum(slots):
    ends = []
    for scale in (1.0, 1 / 2560):
        weights = _table(np.ones((3, 2), np.float32), slots)
        optimizer = RowWiseAdagrad(learning_rate=0.05)
        optimizer.build([weights])
        for g in ([[1.0, 2.0]], [[-3.0, 0.5]]):
            gradient = tf.IndexedSlices(scale * tf.constant(g), tf.constant([1]), (3, 2))
            optimizer.apply_gradients([(gradient, weights)])
        ends.append(weights.numpy())
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)


def test_adagrad_has_one_accumulator_a_row_of_a_table():
    table, kernel = _table(tf.zeros([100, 8])), tf.Variable(tf.zeros([8, 4]), name="mlp/kernel")
    optimizer = RowWiseAdagrad()
    optimizer.build([table, kernel])
    assert [tuple(a.shape) for a in optimizer._accumulators] == [(100,), (8, 4)]


@pytest.mark.parametrize("make", [RowSparseAdam, RowWiseAdagrad])
def test_two_replicas_update_as_the_dense_reference(two_cpus, make):
    rng = np.random.default_rng(1)
    start = rng.normal(size=(6, 3)).astype(np.float32)
    # Row 4 is touched by both replicas, row 2 twice by one of them.
    rows = [tf.constant([4, 1]), tf.constant([2, 4, 2])]
    values = [rng.normal(size=(len(r), 3)).astype(np.float32) for r in rows]
    strategy = cpu_strategy(two_cpus)
    with strategy.scope():
        table = _table(start)
        optimizer = make(learning_rate=0.05)
        optimizer.build([table])

    def part(context):
        r = context.replica_id_in_sync_group
        return tf.IndexedSlices(tf.constant(values[r]), rows[r], tf.constant([6, 3]))

    @tf.function
    def step(gradient):
        def on_replica(mine):
            distinct = with_distinct_rows(sum_gradients([mine]))
            optimizer.apply_distinct(distinct, [table])

        strategy.run(on_replica, args=(gradient,))

    steps = 3
    for _ in range(steps):
        step(strategy.experimental_distribute_values_from_function(part))
    summed = np.stack([values[0][1], values[1][0] + values[1][2], values[0][0] + values[1][1]])
    touched = [1, 2, 4]
    expected = start.copy()
    if make is RowSparseAdam:
        expected[touched] = _adam_loop(start[touched], [summed] * steps, 0.05)
    else:
        expected[touched] = _adagrad_loop(start[touched], [summed] * steps, 0.05, row_wise=True)
    for replica in strategy.experimental_local_results(table):
        np.testing.assert_allclose(replica, expected, rtol=1e-4)


def test_the_configuration_names_the_optimiser():
    settings = config.override(config.tiny(), ["stage1.optimizer=adagrad", "stage1.row_decay=0.1"])
    adagrad = make_optimizer(settings.stage1, None)
    assert isinstance(adagrad, RowWiseAdagrad)
    assert adagrad.get_config()["row_decay"] == 0.1
    assert isinstance(make_optimizer(settings.stage2, None), RowSparseAdam)


@pytest.mark.parametrize("make", [RowSparseAdam, RowWiseAdagrad])
def test_no_update_reads_a_whole_table(two_cpus, make):
    strategy = cpu_strategy(two_cpus[:1])
    with strategy.scope():
        table = _table(tf.zeros([1234, 3]))
        optimizer = make(learning_rate=0.05)
        optimizer.build([table])

    @tf.function
    def step():
        gradient = tf.IndexedSlices(tf.ones([2, 3]), tf.constant([4, 1]), tf.constant([1234, 3]))
        strategy.run(lambda: optimizer.apply_distinct([gradient], [table]))

    outputs = [o for op in step.get_concrete_function().graph.get_operations() for o in op.outputs]
    assert not [o.name for o in outputs if o.shape.rank and o.shape[0] == 1234]


@pytest.mark.parametrize(
    "make",
    [RowSparseAdam, lambda: RowWiseAdagrad(initial_accumulator=0.5)],
    ids=["adam", "adagrad"],
)
def test_slots_begin_where_their_variable_lies(make, two_cpus, monkeypatch):
    """Else the chief would send parameter servers what they can make themselves."""
    made = []

    def noting(function):
        def noted(*arguments, **options):
            value = function(*arguments, **options)
            made.extend([value.device] if value.shape == [6, 2] else [])
            return value

        return noted

    with tf.device(two_cpus[1]):
        variable = tf.Variable(tf.ones([6, 2]))
    for name in ("zeros", "fill"):
        monkeypatch.setattr(tf, name, noting(getattr(tf, name)))
    optimizer = make()
    optimizer.build([variable])
    assert made
    assert set(made) == {variable.device}
    slots = [slot.numpy() for slot in optimizer.variables if slot.shape == [6, 2]]
    assert len(slots) == len(made)
    assert np.unique(slots) in ([0.0], [0.5])
