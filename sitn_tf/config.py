"""What to train: frozen dataclasses, checked when made, written into every run directory.

Flags say where and which (`--stage --data_dir --workdir --preset`); everything else is a
field here, changed by `--set contrast.temperature=0.2`. Each gap that the paper leaves open
is one field, with the paper's letter in `preset=paper` (BUILD_NOTES.md, "Gaps of the paper").
"""

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from sitn_tf import schema
from sitn_tf.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoders of both stages and the scorer of stage 2."""

    name: Literal["sitn", "din", "mean_pool"] = "sitn"
    embedding_dim: int = 32  # D: of items, histories and clusters
    heads: int = 4  # h of Eq. 1, in the encoders and in target attention
    blocks: int = 1  # attention blocks an encoder
    residual: bool = True  # a residual around attention; Eq. 1 has none
    layer_norm: bool = False  # after attention; Eq. 1 has none
    positions: bool = True  # learned recency positions; Eq. 1 has none
    side_features: tuple[str, ...] = (
        schema.TITLE_WORDS,
        *schema.CATEGORICAL_ITEM_FEATURES,
    )  # of the item tables, where the data set has them
    title_words: int = 12  # first words of a title that count
    id_embedding: Literal["full", "hash", "quotient_remainder"] = "full"  # a row an id, or shared
    id_rows: int = 100_000  # of a domain: that hashed ids share, or of the table of remainders
    id_combination: Literal["product", "sum"] = "product"  # of quotient and remainder
    request_features: tuple[str, ...] = ()  # hour, weekday, user: of a request, in stage 2
    user_buckets: int = 100_000  # rows that hashed users share, for the request feature user
    target_attention: Literal["multi_head", "din"] = "multi_head"
    products: bool = True  # u_f * v beside u_f and v in Eq. 8, which has neither product
    mlp: tuple[int, ...] = (128, 64)  # hidden widths of Eq. 8
    dropout: float = 0.0  # in the MLP of Eq. 8 and on encoded histories
    use_source: bool = True  # False: the control that sees no source history
    precision: Literal["float32", "bfloat16", "float16"] = "float32"  # of the layers, in training

    def __post_init__(self) -> None:
        _at_least(self, "embedding_dim", 1)
        _at_least(self, "heads", 1)
        _at_least(self, "blocks", 1)
        _at_least(self, "title_words", 1)
        _at_least(self, "id_rows", 1)
        _at_least(self, "user_buckets", 1)
        _within(self, "dropout", 0.0, 0.99)
        if any(width < 1 for width in self.mlp):
            raise InputError(f"model.mlp={self.mlp} has a width below 1")
        if self.embedding_dim % self.heads:
            raise InputError(
                f"model.embedding_dim={self.embedding_dim} is not a multiple of "
                f"model.heads={self.heads}"
            )
        known = (schema.TITLE_WORDS, *schema.CATEGORICAL_ITEM_FEATURES)
        for feature in self.side_features:
            if feature not in known:
                raise InputError(
                    f"model.side_features: {feature!r} is not one of: {', '.join(known)}"
                )
        for feature in self.request_features:
            if feature not in schema.INPUT_OF_REQUEST_FEATURE:
                raise InputError(
                    f"model.request_features: {feature!r} is not one of: "
                    f"{', '.join(schema.INPUT_OF_REQUEST_FEATURE)}"
                )
        if len(set(self.request_features)) < len(self.request_features):
            raise InputError(
                f"model.request_features={','.join(self.request_features)} names one twice: "
                "name each once"
            )

    @property
    def request_inputs(self) -> tuple[schema.Feature, ...]:
        """What the request features are read from, each once."""
        inputs = map(schema.INPUT_OF_REQUEST_FEATURE.__getitem__, self.request_features)
        return tuple(dict.fromkeys(inputs))


@dataclasses.dataclass(frozen=True)
class ContrastConfig:
    """The contrastive losses of stage 1 (Eq. 3-7)."""

    temperature: float = 0.1  # tau of Eq. 3, 4 and 7
    similarity: Literal["cosine", "dot"] = "cosine"  # the paper's sim is the dot product
    reduction: Literal["mean", "sum"] = "mean"  # over rows and granularities; printed as sums
    i2i_weight: float = 1.0
    i2c_weight: float = 1.0
    granularities: tuple[int, ...] = (32, 64, 128, 256)  # K of each interest space
    top_k: int = 2  # k of Eq. 6: views of a user
    assignment_temperature: float = 0.1  # of pi in Eq. 5; printed as 1
    cluster_norm: Literal["l2", "mean", "none"] = "l2"  # of u in Eq. 5; printed as none
    # of C; shared: orthogonal, and both domains start from the same
    cluster_init: Literal["orthogonal", "shared", "normal"] = "orthogonal"
    view: Literal["mean", "mlp"] = "mean"  # q of Eq. 6; printed as an MLP
    negatives: Literal["clusters", "views"] = "clusters"  # of Eq. 7; views: other users' q
    exclude_own: bool = False  # leave a user's own top-k clusters out of the negatives
    stop_cluster_gradient: bool = False  # pi without a gradient
    alike: float = 1.0  # users whose histories overlap more (Jaccard) are no negatives of Eq. 3, 4

    def __post_init__(self) -> None:
        _above(self, "temperature", 0.0)
        _above(self, "assignment_temperature", 0.0)
        _at_least(self, "i2i_weight", 0.0)
        _at_least(self, "i2c_weight", 0.0)
        _within(self, "alike", 0.0, 1.0)
        if not self.i2i_weight and not self.i2c_weight:
            raise InputError("contrast.i2i_weight and contrast.i2c_weight are both 0")
        if self.i2c_weight and not self.granularities:
            raise InputError("contrast.granularities is empty: name at least one K")
        for clusters in self.granularities:
            if not 1 <= self.top_k <= clusters:
                raise InputError(
                    f"contrast.top_k={self.top_k} is not between 1 and K={clusters}, "
                    "one of contrast.granularities"
                )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How weights move, in either stage."""

    batch_size: int = 256  # records, over all replicas
    epochs: int = 20  # at most
    patience: int = 2  # epochs without a better objective before it stops
    learning_rate: float = 1e-3  # the highest, where it changes
    row_decay: float = 0.0  # decay of the embedding rows that a step touches
    optimizer: Literal["adam", "adagrad"] = (
        "adam"  # both row-sparse (sitn_tf/optimizers/row_sparse.py)
    )
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # after the warm-up
    warmup_steps: int = 0  # over which the learning rate rises linearly
    decay_steps: int = 0  # until the decay ends, warm-up included; 0: all epochs
    final_rate: float = 0.0  # where the decay ends, as a share of learning_rate
    clip_norm: float = 0.0  # bound of the gradients' global norm; 0: none

    def __post_init__(self) -> None:
        _at_least(self, "batch_size", 1)
        _at_least(self, "epochs", 1)
        _at_least(self, "patience", 1)
        _above(self, "learning_rate", 0.0)
        if not math.isfinite(self.learning_rate):
            _refuse(self, "learning_rate", "finite")
        _at_least(self, "row_decay", 0.0)
        _at_least(self, "warmup_steps", 0)
        _at_least(self, "decay_steps", 0)
        _within(self, "final_rate", 0.0, 1.0)
        _at_least(self, "clip_norm", 0.0)


@dataclasses.dataclass(frozen=True)
class Stage1Config(TrainingConfig):
    """Training of stage 1, judged by held-out users."""

    batch_size: int = 512  # users, over all replicas: the contrast's negatives
    epochs: int = 30
    patience: int = 3  # epochs without better held-out retrieval before it stops
    train_ids: bool = False  # also the id embeddings of items that have side features
    item_mask: float = 0.2  # probability that a history's item is hidden, in training
    item_crop: float = 0.0  # share of a history cut off at its ends, in training
    item_shuffle: float = 0.0  # how far items change places, as a share of the history
    i2c_after: int = 0  # steps of i2i alone before i2c joins
    micro_batches: int = 1  # parts of a replica's batch encoded one after the other
    collapse: Literal["warn", "stop", "ignore"] = "warn"  # what collapsed clusters lead to
    retrieval_users: int = 1024  # held-out users ranked against each other

    def __post_init__(self) -> None:
        super().__post_init__()
        _within(self, "item_mask", 0.0, 0.95)
        _within(self, "item_crop", 0.0, 0.95)
        _within(self, "item_shuffle", 0.0, 1.0)
        _at_least(self, "i2c_after", 0)
        _at_least(self, "micro_batches", 1)
        _at_least(self, "retrieval_users", 2)


@dataclasses.dataclass(frozen=True)
class Stage2Config(TrainingConfig):
    """Training of stage 2, stopped by validation AUC; a batch's records are requests."""

    encoders: Literal["fine_tune", "freeze"] = "fine_tune"  # what stage 1 trained
    encoder_rate: float = 1.0  # learning rate of what stage 1 trained, as a share
    # Odds of stage 1's held-out retrieval, as a multiple of chance's, below which there is
    # nothing to transfer and stage 2 starts from scratch; 0: never
    min_lift: float = 8.0
    contrast_weight: float = 0.0  # of L_i2i, kept beside Eq. 9
    log_q: bool = False  # correct logits for the popularity of sampled candidates

    def __post_init__(self) -> None:
        super().__post_init__()
        _above(self, "encoder_rate", 0.0)
        _at_least(self, "min_lift", 0.0)
        _at_least(self, "contrast_weight", 0.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything about a run but where it reads and writes."""

    seed: int = 0
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    contrast: ContrastConfig = dataclasses.field(default_factory=ContrastConfig)
    stage1: Stage1Config = dataclasses.field(default_factory=Stage1Config)
    stage2: Stage2Config = dataclasses.field(default_factory=Stage2Config)

    def __post_init__(self) -> None:
        if self.model.precision == "float16" and self.stage1.micro_batches > 1:
            raise InputError(
                "model.precision=float16 and stage1.micro_batches="
                f"{self.stage1.micro_batches} don't go together, since cached gradients are not "
                "scaled: give --set model.precision=bfloat16, or one micro-batch"
            )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Config":
        return _from_dict(cls, json.loads(text))


def default() -> Config:
    """What works best on measured data."""
    return Config()


def paper() -> Config:
    """The equations to the letter: dot products, sums, an MLP over the views, attention alone."""
    return Config(
        model=ModelConfig(residual=False, positions=False, products=False),
        contrast=ContrastConfig(
            similarity="dot",
            reduction="sum",
            assignment_temperature=1.0,
            cluster_norm="none",
            cluster_init="normal",
            view="mlp",
        ),
        stage1=Stage1Config(item_mask=0.0, train_ids=True),
        stage2=Stage2Config(min_lift=0.0),
    )


def tiny() -> Config:
    """Small enough for tests and a first look."""
    return Config(
        model=ModelConfig(embedding_dim=8, heads=2, mlp=(16,)),
        contrast=ContrastConfig(granularities=(4, 8)),
        stage1=Stage1Config(batch_size=64, epochs=2),
        stage2=Stage2Config(batch_size=64, epochs=2, min_lift=0.0),
    )


PRESETS: dict[str, Callable[[], Config]] = {"default": default, "paper": paper, "tiny": tiny}


def preset(name: str) -> Config:
    """Raises InputError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise InputError(f"--preset={name} is not one of: {', '.join(PRESETS)}")
    return PRESETS[name]()


def override(config: Config, settings: Sequence[str]) -> Config:
    """Applies `section.field=value` settings, each coerced to its field's type.

    Raises:
      InputError: not of that form, an unknown field (near names are listed) or a value
        that the field's type or check refuses.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise InputError(f"--set={setting} is not of the form section.field=value")
        config = _replace(config, path.strip().split("."), text.strip(), path.strip())
    return config


def differences(ours: Config, theirs: Config) -> list[str]:
    """The fields in which two configurations differ, as `path: ours, theirs`."""
    flat, other = _flatten(dataclasses.asdict(ours)), _flatten(dataclasses.asdict(theirs))
    return [f"{path}: {flat[path]}, {other[path]}" for path in flat if flat[path] != other[path]]


def _replace(section: Any, path: list[str], text: str, full_path: str) -> Any:
    hints = typing.get_type_hints(type(section))
    head, rest = path[0], path[1:]
    if head not in hints or bool(rest) != dataclasses.is_dataclass(hints[head]):
        known = list(_flatten(dataclasses.asdict(Config())))
        near = difflib.get_close_matches(full_path, known, n=3, cutoff=0.5) or known
        raise InputError(f"--set {full_path}: no such field; did you mean {', '.join(near)}?")
    if rest:
        value = _replace(getattr(section, head), rest, text, full_path)
    else:
        value = _coerce(text, hints[head], full_path)
    return dataclasses.replace(section, **{head: value})


def _coerce(text: str, kind: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise InputError(f"--set {path}={text} is not one of: {', '.join(choices)}")
        return text
    if origin is tuple:
        element = typing.get_args(kind)[0]
        return tuple(_coerce(part.strip(), element, path) for part in text.split(",") if part)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"--set {path}={text} is not one of: true, false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"--set {path}={text} is not of type {kind.__name__}") from error


def _from_dict(cls: type[T], values: dict[str, Any]) -> T:
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise InputError(f"configuration has unknown fields: {', '.join(sorted(unknown))}")
    made = {}
    for name, value in values.items():
        kind = hints[name]
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            value = _from_dict(kind, value)
        elif typing.get_origin(kind) is tuple:
            value = tuple(value)
        made[name] = value
    return cls(**made)


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


_SECTIONS = types.MappingProxyType(
    {
        "ModelConfig": "model",
        "ContrastConfig": "contrast",
        "Stage1Config": "stage1",
        "Stage2Config": "stage2",
    }
)


def _refuse(config: Any, field: str, accepted: str) -> typing.NoReturn:
    section = _SECTIONS[type(config).__name__]
    raise InputError(f"{section}.{field}={getattr(config, field)} is not {accepted}")


def _at_least(config: Any, field: str, bound: float) -> None:
    if not getattr(config, field) >= bound:
        _refuse(config, field, f"at least {bound}")


def _above(config: Any, field: str, bound: float) -> None:
    if not getattr(config, field) > bound:
        _refuse(config, field, f"above {bound}")


def _within(config: Any, field: str, low: float, high: float) -> None:
    if not low <= getattr(config, field) <= high:
        _refuse(config, field, f"between {low} and {high}")
