"""Model names → classes, and how a model is made and built."""

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config, ModelConfig
from sitn_tf.data import TF_DTYPES
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.precision import layers_in
from sitn_tf.models.din import Din
from sitn_tf.models.mean_pool import MeanPool
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.models.scorer import Scorer
from sitn_tf.models.sitn import Sitn

SCORERS: dict[str, type[Scorer]] = {"sitn": Sitn, "din": Din, "mean_pool": MeanPool}


def make_scorer(config: ModelConfig, tables: dict[str, ItemTable], max_history: int) -> Scorer:
    """A stage-2 model with all its variables made."""
    with layers_in(config.precision):
        scorer = SCORERS[config.name](config, tables, max_history)
    one_request = {
        feature.name: tf.zeros([1, 1] if feature.ragged else [1], TF_DTYPES[feature.dtype])
        for feature in scorer.reads
    }
    scorer(one_request)
    return scorer


def make_pretrainer(config: Config, tables: dict[str, ItemTable], max_history: int) -> Pretrainer:
    """The stage-1 model with all its variables made."""
    pretrainer = Pretrainer(config, tables, max_history)
    one_user = {
        feature.name: tf.zeros([1, 1], tf.int64) for feature in schema.HISTORY_OF_DOMAIN.values()
    }
    dim = config.model.embedding_dim
    pretrainer(one_user)
    for space in pretrainer.i2c:
        for encoder in (space.source, space.target):
            encoder(tf.zeros([1, dim]), tf.zeros([1], tf.bool))
        if config.contrast.cluster_init == "shared":
            space.target.c.assign(space.source.c)
    return pretrainer
