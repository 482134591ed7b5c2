"""What to train: sections of settings, which of them a model uses, presets, and their changes.

Flags say where and which (`--stage --data_dir --workdir --preset`); everything else is a
field of a section (sitn_tf/sections.py), changed by `--set contrast.temperature=0.2` and
written into every run directory.
"""

import dataclasses
import difflib
import json
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeVar

from sitn_tf import sections
from sitn_tf.errors import InputError

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything about a run but where it reads and writes.

    A section that the model does not use (SECTIONS) has its defaults.
    """

    seed: int = 0
    model: sections.ModelConfig = dataclasses.field(default_factory=sections.ModelConfig)
    items: sections.ItemsConfig = dataclasses.field(default_factory=sections.ItemsConfig)
    mlp: sections.MlpConfig = dataclasses.field(default_factory=sections.MlpConfig)
    wide: sections.WideConfig = dataclasses.field(default_factory=sections.WideConfig)
    deep: sections.DeepConfig = dataclasses.field(default_factory=sections.DeepConfig)
    encoder: sections.EncoderConfig = dataclasses.field(default_factory=sections.EncoderConfig)
    sitn: sections.SitnConfig = dataclasses.field(default_factory=sections.SitnConfig)
    din: sections.DinConfig = dataclasses.field(default_factory=sections.DinConfig)
    dien: sections.DienConfig = dataclasses.field(default_factory=sections.DienConfig)
    clsr: sections.ClsrConfig = dataclasses.field(default_factory=sections.ClsrConfig)
    joint: sections.JointConfig = dataclasses.field(default_factory=sections.JointConfig)
    views: sections.ViewsConfig = dataclasses.field(default_factory=sections.ViewsConfig)
    conet: sections.ConetConfig = dataclasses.field(default_factory=sections.ConetConfig)
    minet: sections.MinetConfig = dataclasses.field(default_factory=sections.MinetConfig)
    contrast: sections.ContrastConfig = dataclasses.field(default_factory=sections.ContrastConfig)
    stage1: sections.Stage1Config = dataclasses.field(default_factory=sections.Stage1Config)
    stage2: sections.Stage2Config = dataclasses.field(default_factory=sections.Stage2Config)

    def __post_init__(self) -> None:
        used = sections_of(self.model.name)
        for section, kind in _SECTION_TYPES.items():
            for field in dataclasses.fields(kind) if section not in used else ():
                value = getattr(getattr(self, section), field.name)
                if value != field.default:
                    raise _not_used(f"{section}.{field.name}={value}", section, self.model.name)
        if self.stage2.contrast_weight and "encoder" not in used:
            raise InputError(
                f"stage2.contrast_weight={self.stage2.contrast_weight} needs sequence encoders, "
                f"model.name={self.model.name} has none",
                "give stage2.contrast_weight=0",
            )
        if "joint" in used and not self.model.use_source:
            raise InputError(
                f"model.use_source={self.model.use_source}: model.name={self.model.name} learns "
                "from both domains",
                "give model.use_source=true",
            )
        if self.contrast.i2c_weight and self.model.name in WITHOUT_SPACES:
            raise InputError(
                f"contrast.i2c_weight={self.contrast.i2c_weight}: model.name={self.model.name} has "
                "no interest spaces",
                "give contrast.i2c_weight=0",
            )
        if "encoder" in used and self.model.embedding_dim % self.encoder.heads:
            raise InputError(
                f"model.embedding_dim={self.model.embedding_dim} is not a multiple of "
                f"encoder.heads={self.encoder.heads}"
            )
        if self.model.precision == "float16" and self.stage1.micro_batches > 1:
            raise InputError(
                "model.precision=float16 and stage1.micro_batches="
                f"{self.stage1.micro_batches} don't go together, since cached gradients are not "
                "scaled",
                "give model.precision=bfloat16, or one micro-batch",
            )

    def to_json(self) -> str:
        return json.dumps(self.used(), indent=2) + "\n"

    def used(self, *but: str) -> dict[str, Any]:
        """What the model uses, by section, without the sections `but`."""
        used = {"seed", *sections_of(self.model.name)} - {*but}
        return {name: value for name, value in dataclasses.asdict(self).items() if name in used}

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """What `to_json` writes, read; raises InputError for fields that are not known."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Config":
        """The same of what the JSON holds."""
        return _from_dict(cls, values)


ALL_MODELS = ("model", "items", "contrast", "stage1", "stage2")
"""Sections that go with every model: what all have, and the stages, so that one command line of
settings serves both stages of any model."""

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "sitn": ("mlp", "encoder", "sitn"),
    "din": ("mlp", "din"),
    "dien": ("mlp", "dien"),
    "clsr": ("mlp", "clsr"),
    "mean_pool": ("mlp",),
    "fm": (),
    "wide_deep": ("wide", "deep"),
    "deepfm": ("deep",),
    "mv_dnn": ("joint", "views"),
    "semi": ("mlp", "encoder"),
    "conet": ("joint", "conet"),
    "minet": ("mlp", "joint", "minet"),
}
"""The models, and the sections that each uses besides: their one home."""

WITHOUT_SPACES = ("semi",)
"""Models whose stage 1 has no interest spaces: their contrast.i2c_weight is 0."""

_SECTION_TYPES: dict[str, type] = {
    name: kind for name, kind in typing.get_type_hints(Config).items() if name != "seed"
}


def sections_of(model: str) -> tuple[str, ...]:
    """The sections that a model uses; raises InputError for a name that is not in SECTIONS."""
    if model not in SECTIONS:
        raise InputError(f"model.name={model} is not one of: {', '.join(SECTIONS)}")
    return (*ALL_MODELS, *SECTIONS[model])


def has_stage1(model: str) -> bool:
    """Whether a model has a stage 1 of its own, which trains sequence encoders."""
    return "encoder" in sections_of(model)


OF_STAGE1 = ("model", "items", "encoder", "contrast", "stage1")
"""The sections that a stage 1 reads."""

_OF_SCORERS = ("request_features", "popularity", "user_buckets", "use_source")
"""Fields of `model` that only scorers read."""


def for_stage1(config: Config) -> Config:
    """The same with the defaults of all that a stage 1 doesn't read: equal for all runs that may
    start from the same one.
    """
    default = sections.ModelConfig(name=config.model.name)
    plain = {field: getattr(default, field) for field in _OF_SCORERS}
    read = {section: getattr(config, section) for section in OF_STAGE1}
    return Config(seed=config.seed, **read | {"model": dataclasses.replace(config.model, **plain)})


def default() -> Config:
    """What works best on measured data."""
    return Config()


def paper() -> Config:
    """The equations to the letter: dot products, sums, an MLP over the views, attention alone."""
    return Config(
        items=sections.ItemsConfig(shared_side_features=False, id_dropout=0.0),
        model=sections.ModelConfig(popularity=False, request_features=()),
        mlp=sections.MlpConfig(products=False),
        encoder=sections.EncoderConfig(shared=False, residual=False, positions=False, ages=False),
        sitn=sections.SitnConfig(match="none", source_gate=False, sequence_means=False),
        contrast=sections.ContrastConfig(
            similarity="dot",
            reduction="sum",
            assignment_temperature=1.0,
            cluster_norm="none",
            cluster_init="normal",
            top_k=2,
            view="mlp",
        ),
        stage1=sections.Stage1Config(min_steps=0, item_mask=0.0, train_ids=True),
        stage2=sections.Stage2Config(min_steps=0, min_lift=0.0, race_steps=0, contrast_weight=0.0),
    )


def tiny() -> Config:
    """Small enough for tests and a first look."""
    return Config(
        model=sections.ModelConfig(embedding_dim=8),
        mlp=sections.MlpConfig(widths=(16,)),
        encoder=sections.EncoderConfig(heads=2),
        contrast=sections.ContrastConfig(granularities=(4, 8)),
        stage1=sections.Stage1Config(batch_size=64, epochs=2, min_steps=0),
        stage2=sections.Stage2Config(
            batch_size=64, epochs=2, min_steps=0, min_lift=0.0, race_steps=0
        ),
    )


PRESETS: dict[str, Callable[[], Config]] = {"default": default, "paper": paper, "tiny": tiny}


def preset(name: str) -> Config:
    """Raises InputError for a name that is not in PRESETS."""
    if name not in PRESETS:
        raise InputError(f"preset={name} is not one of: {', '.join(PRESETS)}")
    return PRESETS[name]()


def override(config: Config, settings: Sequence[str]) -> Config:
    """Applies `section.field=value` settings together, each coerced to its field's type.

    Another `model.name` leaves behind what it does not use: those sections of `config` fall
    back to their defaults, and whether it sees the source and has interest spaces is for its own
    default to say.

    Raises:
      InputError: not of that form, an unknown field (near names are listed), a value that
        the field's type or check refuses, or a setting that the model does not use.
    """
    changes: dict[str, dict[str, Any]] = {}
    for setting in settings:
        path, equals, text = map(str.strip, setting.partition("="))
        if not equals:
            raise InputError(f"set={setting} is not of the form section.field=value")
        section, dot, field = path.rpartition(".")
        hints = typing.get_type_hints(_SECTION_TYPES.get(section, object) if dot else Config)
        if field not in hints or dataclasses.is_dataclass(hints[field]):
            raise InputError(f"{path}: no such field; {_near(path)}")
        changes.setdefault(section, {})[field] = _coerce(text, hints[field], path)
    model = changes.get("model", {}).get("name", config.model.name)
    used = sections_of(model)
    if model != config.model.name:
        changes["model"].setdefault("use_source", None)
        if model in WITHOUT_SPACES:
            changes.setdefault("contrast", {}).setdefault("i2c_weight", 0.0)
    values = changes.pop("", {})
    for section, kind in _SECTION_TYPES.items():
        given = changes.get(section, {})
        for field, value in given.items() if section not in used else ():
            raise _not_used(f"{section}.{field}={value}", section, model)
        before = getattr(config, section) if section in used else kind()
        values[section] = dataclasses.replace(before, **given)
    return dataclasses.replace(config, **values)


def as_settings(config: Config) -> tuple[str, list[str]]:
    """The nearest preset, and the settings of `override` that make it this one but for the seed."""
    found: dict[str, list[str]] = {}
    own = _flatten(dataclasses.asdict(config))
    for name in PRESETS:
        plain = preset(name)
        named = override(plain, [f"model.name={config.model.name}"])
        theirs = _flatten(dataclasses.asdict(named)) | {"model.name": plain.model.name}
        changed = [path for path in own if path != "seed" and own[path] != theirs[path]]
        # No text stands for a value that is to be left to the model.
        if all(own[path] is not None for path in changed):
            found[name] = [f"{path}={_as_text(own[path])}" for path in changed]
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def _as_text(value: Any) -> str:
    """What `_coerce` reads."""
    if isinstance(value, tuple):
        return ",".join(map(_as_text, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def differences(
    ours: Config, theirs: Config, within: Sequence[str] = (), but: Collection[str] = ()
) -> list[str]:
    """The fields in which two configurations differ, as `path: ours, theirs`.

    Args:
      within: sections or fields (`model.embedding_dim`) to compare; all if empty.
      but: fields that are not compared.
    """
    flat, other = _flatten(dataclasses.asdict(ours)), _flatten(dataclasses.asdict(theirs))
    return [
        f"{path}: {flat[path]}, {other[path]}"
        for path in flat
        if flat[path] != other[path]
        and path not in but
        and (not within or path in within or path.partition(".")[0] in within)
    ]


def _near(path: str) -> str:
    """What may be meant by a path: fields of the same name elsewhere, or spelt alike."""
    known = list(_flatten(dataclasses.asdict(Config())))
    last = path.rpartition(".")[2]
    elsewhere = [field for field in known if last in field.split(".")]
    near = elsewhere or difflib.get_close_matches(path, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"the sections are: {', '.join(_SECTION_TYPES)}"


def _not_used(setting: str, section: str, model: str) -> InputError:
    return InputError(
        f"{setting}: model.name={model} has no section {section}; it uses the sections "
        f"{', '.join(sections_of(model))}"
    )


def _coerce(text: str, kind: Any, path: str) -> Any:
    origin = typing.get_origin(kind)
    if origin is Literal:
        choices = typing.get_args(kind)
        if text not in choices:
            raise InputError(f"{path}={text} is not one of: {', '.join(choices)}")
        return text
    if origin is tuple:
        element = typing.get_args(kind)[0]
        return tuple(_coerce(part.strip(), element, path) for part in text.split(",") if part)
    if kind in (bool, bool | None):
        if text.lower() not in ("true", "false"):
            raise InputError(f"{path}={text} is not one of: true, false")
        return text.lower() == "true"
    if kind == float | None:
        kind = float
    try:
        return kind(text)
    except ValueError as error:
        raise InputError(f"{path}={text} is not of type {kind.__name__}") from error


def _from_dict(cls: type[T], values: dict[str, Any], prefix: str = "") -> T:
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    if unknown:
        raise InputError(f"configuration has unknown fields: {', '.join(sorted(unknown))}")
    return cls(**{name: _read(value, hints[name], prefix + name) for name, value in values.items()})


def _read(value: Any, kind: Any, path: str) -> Any:
    """A field of what `to_json` writes; raises InputError for a value of another type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        if isinstance(kind, type) and isinstance(value, dict):
            return _from_dict(kind, value, f"{path}.")
    elif origin is tuple:
        if isinstance(value, list):
            return tuple(_read(part, typing.get_args(kind)[0], path) for part in value)
    elif origin is Literal:
        if value in typing.get_args(kind):
            return value
    elif isinstance(value, bool) == (kind in (bool, bool | None)) and isinstance(
        value, float | int | kind if kind in (float, float | None) else kind
    ):
        return value
    raise InputError(f"{path} cannot be {value!r}")


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
