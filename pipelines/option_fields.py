"""Options stated once, as fields of a dataclass: default, meaning and what is accepted."""

import dataclasses
import typing
from collections.abc import Callable
from typing import Any

from absl import flags

from sitn_tf.errors import InputError

Accepted = tuple[str, Callable[[Any], bool]]
"""What is accepted in words, and whether a value is."""

ANYTHING: Accepted = ("", lambda value: True)


def at_least(low: float) -> Accepted:
    return f"at least {low:g}", lambda value: value >= low


def one_of(*choices: str) -> Accepted:
    return f"one of: {', '.join(choices)}", lambda value: value in choices


def option(default: Any, meaning: str, accepted: Accepted = ANYTHING) -> Any:
    """A field; where it has a meaning, `define_flags` makes a flag of it."""
    return dataclasses.field(default=default, metadata={"meaning": meaning, "accepted": accepted})


def check(options: Any) -> None:
    """
    Raises:
      InputError: a field of a dataclass has a value that is not accepted.
    """
    for field in dataclasses.fields(options):
        words, fits = field.metadata.get("accepted", ANYTHING)
        value = getattr(options, field.name)
        if not fits(value):
            raise InputError(f"{field.name}={value} is not {words}")


def define_flags(options: type, values: flags.FlagValues) -> None:
    """A flag for each field with a meaning, named as the field; `X | None` takes an X."""
    flags.disclaim_key_flags()  # --help shows them among those of the module that calls
    define: dict[type, Callable[..., Any]] = {
        bool: flags.DEFINE_bool,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }
    for name, kind in typing.get_type_hints(options).items():
        field = options.__dataclass_fields__[name]  # type: ignore[attr-defined]
        if meaning := field.metadata.get("meaning"):
            of_kind = define[(*typing.get_args(kind), kind)[0]]
            of_kind(name, field.default, meaning, flag_values=values)
