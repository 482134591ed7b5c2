"""Model names → scorers and pre-trainers, and how they are made and built."""

import tensorflow as tf

from sitn_tf import schema
from sitn_tf.config import Config
from sitn_tf.data import TF_DTYPES
from sitn_tf.distributed import parameter_servers
from sitn_tf.errors import InputError
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.precision import layers_in
from sitn_tf.models.clsr import Clsr
from sitn_tf.models.conet import Conet
from sitn_tf.models.deepfm import DeepFm
from sitn_tf.models.dien import Dien
from sitn_tf.models.din import Din
from sitn_tf.models.fm import Fm
from sitn_tf.models.mean_pool import MeanPool
from sitn_tf.models.minet import Minet
from sitn_tf.models.mv_dnn import MvDnn
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.models.scorer import Scorer
from sitn_tf.models.semi import Semi
from sitn_tf.models.sitn import Sitn
from sitn_tf.models.wide_deep import WideDeep

SCORERS: dict[str, type[Scorer]] = {
    "sitn": Sitn,
    "din": Din,
    "dien": Dien,
    "clsr": Clsr,
    "mean_pool": MeanPool,
    "fm": Fm,
    "wide_deep": WideDeep,
    "deepfm": DeepFm,
    "mv_dnn": MvDnn,
    "semi": Semi,
    "conet": Conet,
    "minet": Minet,
}
"""Stage 2 of each model of config.SECTIONS."""

PRETRAINERS: dict[str, type[Pretrainer]] = {"sitn": Pretrainer, "semi": Pretrainer}
"""Stage 1 of the models that have one."""


def make_scorer(config: Config, tables: dict[str, ItemTable], max_history: int) -> Scorer:
    """A stage-2 model with all its variables made."""
    with layers_in(config.model.precision):
        scorer = SCORERS[config.model.name](config, tables, max_history)
    one_request = {
        feature.name: tf.zeros([1, 1] if feature.ragged else [1], TF_DTYPES[feature.dtype])
        for feature in (*scorer.reads, *schema.CANDIDATES_OF_DOMAIN.values())
    }
    for domain in schema.DOMAINS if scorer.learns_source else [schema.TARGET]:
        parameter_servers.make_variables(scorer, one_request, domain=domain)
    return scorer


def make_pretrainer(config: Config, tables: dict[str, ItemTable], max_history: int) -> Pretrainer:
    """The stage-1 model with all its variables made.

    Raises:
      InputError: the model has no stage 1.
    """
    pretrainer = _pretrainer_of(config)(config, tables, max_history)
    pretrainer.make_variables()
    return pretrainer


def handed_over(stage1: Config, stage2: Config) -> dict[str, tuple[str, ...]]:
    """What a pre-trainer hands over to a scorer: attributes of both → settings to agree on.

    Args:
      stage1, stage2: configurations of the two runs, maybe of different models.
    """
    takes_over = SCORERS[stage2.model.name].takes_over
    offered = _pretrainer_of(stage1).hands_over
    return {name: settings for name, settings in offered.items() if name in takes_over}


def _pretrainer_of(config: Config) -> type[Pretrainer]:
    name = config.model.name
    if name not in PRETRAINERS:
        raise InputError(
            f"model.name={name} has no stage 1; these have: {', '.join(PRETRAINERS)}",
            "train its stage 2 with init=none, or from the stage 1 of another model",
        )
    return PRETRAINERS[name]
