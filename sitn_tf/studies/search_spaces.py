"""What is tried of each model: fields of its configuration → the values they may take.

All share `stage2.learning_rate` (log-uniform), the batch and the decay of embedding rows, and
dropout where a layer drops anything; beside these each has one or two knobs of its own.
`model.embedding_dim` stays, so that all are of one size, and so do epochs. Every default lies
within its space: a search begins with it.
"""

import dataclasses
from collections.abc import Mapping

from sitn_tf.config import Config, override
from sitn_tf.errors import InputError
from sitn_tf.studies.arms import Arm


@dataclasses.dataclass(frozen=True)
class Range:
    """Log-uniform between two bounds."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of these values, as `--set` takes them."""

    values: tuple[str, ...]


Space = Mapping[str, Range | Choice]

_RATE: Space = {"stage2.learning_rate": Range(3e-4, 1e-2)}
_ROWS: Space = {"stage2.row_decay": Choice(("0", "1e-5", "1e-4", "1e-3"))}
_DROPOUT: Space = {"model.dropout": Choice(("0", "0.1", "0.2", "0.4"))}
_BATCH: Space = {"stage2.batch_size": Choice(("64", "256", "512"))}
_PLAIN: Space = {**_RATE, **_BATCH, **_ROWS}
_COMMON: Space = {**_PLAIN, **_DROPOUT}
_STAGE1: Space = {
    "contrast.temperature": Choice(("0.05", "0.1", "0.2")),
    "stage2.encoder_rate": Choice(("0.1", "0.3", "1")),
}
_WIDTHS = Choice(("64,32", "128,64", "256,128"))
_SOURCE_LOSS: Space = {"joint.source_weight": Choice(("0.1", "0.3", "1"))}

SEARCH_SPACES: Mapping[str, Space] = {
    "sitn": {**_COMMON, **_STAGE1},
    "semi": {**_COMMON, **_STAGE1},
    "din": {
        **_COMMON,
        "din.l2": Choice(("0", "1e-4", "1e-3", "1e-2")),
        "din.mlp_activation": Choice(("dice", "relu")),
    },
    "dien": {
        **_COMMON,
        "dien.auxiliary_weight": Choice(("0", "0.1", "0.5", "1")),
        "dien.mlp_activation": Choice(("dice", "relu")),
    },
    "clsr": {
        **_COMMON,
        "clsr.contrast_weight": Choice(("0", "0.001", "0.01", "0.1")),
        "clsr.recent_items": Choice(("1", "3", "5")),
    },
    "mean_pool": {**_COMMON, "mlp.products": Choice(("true", "false"))},
    # It has no layer to drop from; mv_dnn's views and conet's networks drop nothing either.
    "fm": {**_PLAIN, "items.id_dropout": Choice(("0", "0.25", "0.5"))},
    "wide_deep": {
        **_COMMON,
        "wide.recent_items": Choice(("0", "5", "10", "20")),
        "deep.widths": _WIDTHS,
    },
    "deepfm": {**_COMMON, "deep.widths": _WIDTHS},
    "mv_dnn": {**_PLAIN, **_SOURCE_LOSS, "views.widths": _WIDTHS},
    "conet": {**_PLAIN, **_SOURCE_LOSS, "conet.l1": Choice(("0", "1e-6", "1e-5", "1e-4"))},
    "minet": {**_COMMON, **_SOURCE_LOSS, "minet.attention_width": Choice(("32", "64", "128"))},
}
"""Of every model of config.SECTIONS."""


def space_of(arm: Arm, config: Config, given: tuple[str, ...] = ()) -> dict[str, Range | Choice]:
    """What is searched for an arm: its model's space, but for what is settled already.

    Args:
      config: of the arm.
      given: `section.field=value` of every arm. Neither these fields nor those of the arm are
        searched, nor, without a stage 1, what only that has.
    """
    settled = {setting.partition("=")[0].strip() for setting in (*given, *arm.settings)}
    if not arm.pretrain:
        settled |= _STAGE1.keys()
    space = SEARCH_SPACES[config.model.name]
    return {field: values for field, values in space.items() if field not in settled}


def defaults(space: Space, config: Config) -> dict[str, float | str]:
    """The point of a space where a configuration lies.

    Raises:
      InputError: it lies outside.
    """
    return {field: _default(field, values, config) for field, values in space.items()}


def _default(field: str, values: Range | Choice, config: Config) -> float | str:
    section, _, name = field.partition(".")
    value = getattr(getattr(config, section), name)
    if isinstance(values, Range):
        if values.low <= value <= values.high:
            return float(value)
    else:
        for choice in values.values:
            if override(config, [f"{field}={choice}"]) == config:
                return choice
    raise InputError(
        f"{field}={value} is outside what is searched, {values}",
        f"give {field}=..., since what is given is not searched",
    )
