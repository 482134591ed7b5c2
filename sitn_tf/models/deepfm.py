"""DeepFM (Guo et al., "DeepFM: A Factorization-Machine based Neural Network for CTR Prediction",
IJCAI 2017).

    logit = y_FM + y_DNN                                                    (Eq. 1)
    y_FM  = sum_i w_i x_i + sum_{i<j} <v_i, v_j> x_i x_j                    (Eq. 2)
    y_DNN = MLP([e_1, ..., e_N])                                            (Eq. 3 and 4)

over the fields of models/field_scorer.py. Both components read the same embeddings: e_i of the
MLP is v_i x_i of the pairs.

Deviations from the paper, and why:
- The deep part has `deep.widths` (128, 64) by default and `model.dropout` (0), the same for all
  models that are compared here; the paper's best is 400 x 3 with half of it dropped.
- Bags, the shared item table, the user and the training are as in models/fm.py.

The model of the paper knows one domain, and so does this; with `model.use_source=true` the source
history is one more field.
"""

import tensorflow as tf

from sitn_tf.config import Config
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.factorization import pairwise
from sitn_tf.layers.mlp import make_mlp
from sitn_tf.models.field_scorer import FieldScorer
from sitn_tf.models.scorer import Encoded


class DeepFm(FieldScorer):
    """Linear weights + pairs + MLP, whose last bias is that of the logit."""

    def __init__(self, config: Config, tables: dict[str, ItemTable], max_history: int) -> None:
        super().__init__(config, tables, max_history)
        self.deep = make_mlp(config.deep.widths, 1, config.model.dropout, "deep")

    def score(self, encoded: Encoded, candidates: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Eq. 1 without the sigmoid."""
        fields, linear = self.together(encoded, candidates)
        deep = self.deep(self.side_by_side(fields), training=training)[..., 0]
        return linear + pairwise(fields) + tf.cast(deep, linear.dtype)
