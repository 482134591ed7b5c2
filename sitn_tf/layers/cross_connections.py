"""Two networks side by side, each layer of which sees what is below it in both (CoNet).

Hu, Zhang and Yang, "CoNet: Collaborative Cross Networks for Cross-Domain Recommendation", CIKM
2018, Sections 4.1 to 4.3.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf
import tf_keras

from sitn_tf.layers.mlp import Parts, linear


class CrossNetworks(tf_keras.layers.Layer):
    """A network a domain, coupled by cross connections (Eq. 8), each with its logit (Eq. 4).

        a_d^{l+1} = ReLU(W_d^l a_d^l + b_d^l + H^l a_e^l)    e the other domain; H^l for both ways
        logit_d   = h_d . a_d^L + c_d

    Args:
      domains: names of the two.
      widths: of the hidden layers.
      crossed: how many of them have an H, from the first.
    """

    def __init__(
        self, domains: Iterable[str], widths: tuple[int, ...], crossed: int, name: str = "networks"
    ) -> None:
        super().__init__(name=name)
        self.widths = widths
        self.crossed = crossed
        self.networks = {
            domain: [
                tf_keras.layers.Dense(width, name=f"{domain}_{number}")
                for number, width in enumerate((*widths, 1))
            ]
            for domain in domains
        }

    def build(self, input_shape: tf.TensorShape) -> None:
        below = (input_shape[-1], *self.widths)
        for network in self.networks.values():
            for layer, width in zip(network, below, strict=True):
                with tf.name_scope(f"{self.name}/{layer.name}"):
                    layer.build([None, width])
        self.crosses = [
            self.add_weight(f"{self.name}/cross_{number}", shape=(below[number], width))
            for number, width in enumerate(self.widths[: self.crossed])
        ]
        super().build(input_shape)

    def logits(self, domain: str, inputs: Mapping[str, Parts]) -> tf.Tensor:
        """Inputs of both networks → logits of one domain, `[B, C]`.

        Args:
          inputs: a^0 by domain, of the same widths.
        """
        (beside,) = inputs.keys() - {domain}
        states = inputs
        for number in range(len(self.widths)):
            # Nothing sees the other network above the last cross connection.
            seen = (domain, beside) if number + 1 < self.crossed else (domain,)
            states = {name: [tf.nn.relu(self._layer(number, name, states))] for name in seen}
        return self._layer(len(self.widths), domain, states)[..., 0]

    def _layer(self, number: int, domain: str, below: Mapping[str, Parts]) -> tf.Tensor:
        """W_d a_d + b_d + H a_e, without H where the layer has none."""
        layer = self.networks[domain][number]
        total = linear(below[domain], layer.kernel)
        total += tf.cast(layer.bias, total.dtype)
        if number < self.crossed:
            (beside,) = below.keys() - {domain}
            total += linear(below[beside], self.crosses[number])
        return total

    def l1(self) -> tf.Tensor:
        """The sum of |h| over the entries of all H (Eq. 9 without lambda): scalar float32."""
        return tf.add_n([tf.reduce_sum(tf.abs(tf.cast(h, tf.float32))) for h in self.crosses])
