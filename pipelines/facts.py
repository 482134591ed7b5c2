"""Facts that one step tells another: dataclasses to JSON and back by the types of their fields."""

import collections
import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")


def to_json(value: Any) -> Any:
    """What `json` takes: dataclasses as dicts of their fields, arrays [n] as lists."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return value


def without_none(entry: Any) -> dict[str, Any]:
    """`to_json` of a dataclass, without the fields that are None: an entry of the manifest."""
    return {name: value for name, value in to_json(entry).items() if value is not None}


def from_json(kind: type[T], value: Any) -> T:
    """A value of a type from what `to_json` made of it, also after a way through a file.

    Types: dataclasses, dicts, Counters, lists, tuples of one type or of plain values,
    `X | None`, int64 arrays and plain values.

    Raises:
      LookupError, TypeError, AttributeError, ValueError: it is not of the type.
    """
    return typing.cast(T, _from_json(kind, value))


_fields = functools.cache(typing.get_type_hints)


def _from_json(kind: Any, value: Any) -> Any:
    origin, of = typing.get_origin(kind) or kind, typing.get_args(kind)
    if dataclasses.is_dataclass(origin):
        made = typing.cast(type, origin)
        of_field = _fields(made)
        entries = {name: _from_json(of_field[name], entry) for name, entry in value.items()}
        return made(**entries)
    if origin is types.UnionType:
        return None if value is None else _from_json(of[0], value)
    if origin is np.ndarray:
        return np.array(value, np.int64)
    if origin in (list, tuple):
        return origin(_from_json(of[0], entry) for entry in value)
    if origin in (dict, collections.Counter):
        key, entry = of if len(of) == 2 else (*of, int)
        return origin({key(k): _from_json(entry, v) for k, v in value.items()})
    return value
