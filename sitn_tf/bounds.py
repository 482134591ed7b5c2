"""Bounds of fields: what is outside of one is refused by the name that `--set` has for the field.

Each function takes a section of the configuration (sitn_tf/sections.py) and names of its fields.
"""

from collections.abc import Sequence
from typing import Any, NoReturn

from sitn_tf.errors import InputError


def section_of(kind: type) -> str:
    """The name of a section in a configuration, by its class: MlpConfig is `mlp`."""
    return kind.__name__.removesuffix("Config").lower()


def refuse(config: Any, field: str, accepted: str) -> NoReturn:
    """Raises InputError: the field is not `accepted`."""
    where = f"{section_of(type(config))}.{field}"
    raise InputError(f"{where}={getattr(config, field)} is not {accepted}")


def each_of(config: Any, field: str, known: Sequence[str]) -> None:
    """Raises InputError unless all values of a field are `known`."""
    for value in getattr(config, field):
        if value not in known:
            where = f"{section_of(type(config))}.{field}"
            raise InputError(f"{where}: {value!r} is not one of: {', '.join(known)}")


def widths(config: Any, field: str, at_least_one: bool = False) -> None:
    """Raises InputError unless a field holds widths of layers."""
    found = getattr(config, field)
    where = f"{section_of(type(config))}.{field}={found}"
    if at_least_one and (not found or min(found) < 1):
        raise InputError(f"{where}: name at least one width, each above 0")
    if any(width < 1 for width in found):
        raise InputError(f"{where} has a width below 1")


def at_least(config: Any, bound: float, *fields: str) -> None:
    """Raises InputError where a field is less than the bound, or NaN."""
    for field in fields:
        if not getattr(config, field) >= bound:
            refuse(config, field, f"at least {bound}")


def above(config: Any, bound: float, *fields: str) -> None:
    """Raises InputError unless each field is above the bound."""
    for field in fields:
        if not getattr(config, field) > bound:
            refuse(config, field, f"above {bound}")


def within(config: Any, low: float, high: float, *fields: str) -> None:
    """Raises InputError unless each field is between the bounds, these included."""
    for field in fields:
        if not low <= getattr(config, field) <= high:
            refuse(config, field, f"between {low} and {high}")
