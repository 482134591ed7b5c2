"""Multi-View Deep Neural Network: one view of the user, one of each domain's items, one space.

Elkahky, Song and He, "A Multi-View Deep Learning Approach for Cross Domain User Modeling in
Recommendation Systems", WWW 2015.

    u = f_user(x_user),  v_d = f_d(x_item)        (tanh layers; a view f_d a domain d)
    logit = gamma cos(u, v_d) + b_d               (their P(v | u) is a softmax of gamma cos)

The user view is trained by the clicks of both domains at once, the views of items each by those
of their own: the training objective of the paper, with the losses of both summed here where its
algorithm takes a domain's batches in turn. Where this differs:

- Eq. 9's cross-entropy of each candidate in the place of the softmax over one clicked and a few
  random items, so that scores are probabilities as every other model's; b_d and a learned gamma
  make a cosine a logit.
  TensorFlow Recommenders' Retrieval task, a softmax over the other clicks of a batch, is not used:
  it would be a second loss beside Eq. 9's, over other negatives than the data set already gives.
- The user's features are the paper's queries and visited domains; here the means of both
  histories, and the request features, if any. A candidate of either domain sees both histories.
- `model.dropout` finds nothing to drop.
- Letter-trigram hashing of raw text is replaced by the item embeddings that all models share.
"""

import math

import tensorflow as tf
import tf_keras

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import Batch
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.embedding import masked_mean
from sitn_tf.losses import unit
from sitn_tf.models.joint_scorer import JointScorer
from sitn_tf.models.scorer import Encoded, Histories

FIRST_SCALE = 5.0
"""gamma before training: logits of -5 to 5, where a cross-entropy has a gradient."""

USER = "user"


class MvDnn(JointScorer):
    """gamma cos(user view, item view) + b, on the clicks of both domains."""

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        dim, widths = config.model.embedding_dim, config.views.widths
        self.user_view = _view(widths, "user_view")
        self.item_views = {domain: _view(widths, f"{domain}_view") for domain in self.items}
        for view in self.item_views.values():
            view.build([None, dim])
        self.scale = self.add_weight(
            "log_scale", [], initializer=tf_keras.initializers.Constant(math.log(FIRST_SCALE))
        )
        self.bias = {
            domain: self.add_weight(f"{domain}_bias", [], initializer="zeros")
            for domain in self.items
        }

    def item_vectors(self, domain: str, ids: tf.Tensor) -> tf.Tensor:
        """Ids `[U]` → `[U, D + P]` float32: the embedding, and the item's view of length 1."""
        embedded = self.items[domain].vectors(ids)
        seen = unit(tf.cast(self.item_views[domain](embedded), tf.float32))
        real = tf.cast(ids != schema.PAD_ID, tf.float32)[:, None]
        return tf.concat([tf.cast(embedded, tf.float32), seen * real], axis=-1)

    def encode(self, histories: Histories, request: Batch, training: bool = False) -> Encoded:
        """Both histories' mean embeddings and the request → the user's view, `[B, P]`."""
        dim = self.config.model.embedding_dim
        parts = [masked_mean(h.vectors[..., :dim], h.mask) for h in histories.values()]
        for vectors in self.encode_request(histories, request).values():
            count = len(self.config.model.request_features)
            parts.append(tf.reshape(tf.cast(vectors, tf.float32), [-1, count * dim]))
        view = self.user_view(tf.concat(parts, axis=-1))
        return {USER: unit(tf.cast(view, tf.float32))}

    def logits(self, domain: str, encoded: Encoded, candidates: tf.Tensor) -> tf.Tensor:
        """Gamma cos + b of a domain."""
        views = candidates[..., self.config.model.embedding_dim :]
        cosine = tf.einsum("bp,bcp->bc", encoded[USER], views)
        scale, bias = (tf.cast(v, tf.float32) for v in (self.scale, self.bias[domain]))
        return tf.exp(scale) * cosine + bias


def _view(widths: tuple[int, ...], name: str) -> tf_keras.Sequential:
    """Tanh layers, as in the paper, `[..., I]` → `[..., P]`."""
    layers = [tf_keras.layers.Dense(width, activation="tanh") for width in widths]
    return tf_keras.Sequential(layers, name=name)
