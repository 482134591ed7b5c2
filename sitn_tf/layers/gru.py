"""Gated recurrent units over masked histories, plain (GRU) and with attention (AUGRU).

Zhou et al., "Deep Interest Evolution Network for Click-Through Rate Prediction", AAAI 2019. A
GRU whose update gate is multiplied by the mask and an AUGRU, whose update gate is multiplied by
an attention score that is 0 for padding, are one step function: where the factor is 0 the state
is what it was, bit by bit.
"""

import tensorflow as tf
import tf_keras


def gru_step(
    projected: tf.Tensor, state: tf.Tensor, recurrent: tf.Tensor, attention: tf.Tensor
) -> tf.Tensor:
    """One step of Q sequences over each row's inputs.

        u = sigmoid(W^u i + U^u h + b^u),  r = sigmoid(W^r i + U^r h + b^r)
        n = tanh(W^h i + r (U^h h) + b^h),  h' = (1 - a u) h + a u n

    Args:
      projected: `[B, 1, 3 H]`, W i + b of update gate, reset gate and new state.
      state: `[B, Q, H]`, h.
      recurrent: `[H, 3 H]`, U in the same order.
      attention: `[B, Q, 1]`, a.

    Returns:
      `[B, Q, H]`, h'; exactly h where a is 0.
    """
    units = recurrent.shape[0]
    flat = tf.matmul(tf.reshape(state, [-1, units]), recurrent)
    of_state = tf.reshape(flat, tf.concat([tf.shape(state)[:-1], [3 * units]], axis=0))
    sizes = [2 * units, units]
    input_gates, input_new = tf.split(projected, sizes, axis=-1)
    state_gates, state_new = tf.split(of_state, sizes, axis=-1)
    update, reset = tf.split(tf.sigmoid(input_gates + state_gates), 2, axis=-1)
    new = tf.tanh(input_new + reset * state_new)
    return state + attention * update * (new - state)


def run_gru(
    projected: tf.Tensor,
    recurrent: tf.Tensor,
    attention: tf.Tensor,
    every: bool,
    start: tf.Tensor | None = None,
) -> tf.Tensor:
    """Q sequences of states over each row's inputs; a loop in the graph.

    Args:
      projected: `[B, T, 3 H]`, see `gru_step`; T may be 0.
      recurrent: `[H, 3 H]`.
      attention: `[B, Q, T]`.
      every: all states, not only the last.
      start: `[B, Q, H]`, the state before the first step; zeros if None.

    Returns:
      `[T, B, Q, H]` if `every`, else `[B, Q, H]`.
    """
    rows, queries, steps = tf.unstack(tf.shape(attention))
    units, dtype = recurrent.shape[0], projected.dtype
    inputs = _by_step(tf.transpose(projected, [1, 0, 2])[:, :, None])
    factors = _by_step(tf.transpose(attention, [2, 0, 1])[..., None])
    if start is None:
        start = tf.zeros([rows, queries, units], dtype)
    # The start is one of them, so that there is a shape to stack where T is 0.
    states = tf.TensorArray(dtype, size=steps + 1 if every else 1).write(0, start)

    def step(t: tf.Tensor, state: tf.Tensor, states: tf.TensorArray) -> tuple[object, ...]:
        state = gru_step(inputs.read(t), state, recurrent, factors.read(t))
        state.set_shape(start.shape)
        return t + 1, state, states.write(t + 1, state) if every else states

    _, last, states = tf.while_loop(
        lambda t, *_: t < steps,
        step,
        (tf.constant(0), start, states),
        shape_invariants=(tf.TensorShape([]), start.shape, None),
    )
    return states.stack()[1:] if every else last


def _by_step(values: tf.Tensor) -> tf.TensorArray:
    """`[T, ...]` as an array that is read step by step, and whose gradient is written so."""
    return tf.TensorArray(values.dtype, size=tf.shape(values)[0]).unstack(values)


class Gru(tf_keras.layers.Layer):
    """The weights of a GRU or AUGRU.

    Args:
      units: H.
    """

    def __init__(self, units: int, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = units

    def build(self, input_shape: tf.TensorShape) -> None:
        width = 3 * self.units
        self.kernel = self._weight("kernel", (input_shape[-1], width), "glorot_uniform")
        self.recurrent = self._weight("recurrent", (self.units, width), "orthogonal")
        self.bias = self._weight("bias", (width,), "zeros")
        super().build(input_shape)

    def _weight(self, name: str, shape: tuple[int, ...], initializer: str) -> tf.Variable:
        return self.add_weight(f"{self.name}/{name}", shape=shape, initializer=initializer)

    def _run(
        self,
        sequence: tf.Tensor,
        attention: tf.Tensor,
        every: bool,
        start: tf.Tensor | None = None,
    ) -> tf.Tensor:
        projected = tf.matmul(sequence, self.kernel) + tf.cast(self.bias, sequence.dtype)
        recurrent = tf.cast(self.recurrent, projected.dtype)
        return run_gru(projected, recurrent, tf.cast(attention, projected.dtype), every, start)

    def call(self, sequence: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
        """`[B, T, I]` sequence, mask `[B, T]` bool → the state after each step, `[B, T, H]`.

        Padding leaves the state as it was.
        """
        states = self._run(sequence, mask[:, None], every=True)
        return tf.transpose(states[:, :, 0], [1, 0, 2])

    def last_states(
        self, sequence: tf.Tensor, attention: tf.Tensor, start: tf.Tensor | None = None
    ) -> tf.Tensor:
        """AUGRU: `[B, T, I]` sequence, attention `[B, C, T]` → last states `[B, C, H]`.

        The inputs are projected once for all candidates.

        Args:
          start: `[B, C, H]`, the states before the first step; zeros if None.
        """
        return self._run(sequence, attention, every=False, start=start)
