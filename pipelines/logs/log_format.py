"""How a domain's log is to be read: which field is what, and what an event's columns are."""

import dataclasses
from collections.abc import Collection, Iterable

import pyarrow as pa

from sitn_tf import schema
from sitn_tf.errors import InputError

TIME_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000, schema.ORDER: 1}
"""Units of the time field, in parts of a second."""

USER, ITEM, TIME = "user", "item", "time"
CLICKED, REQUEST, SCORE, RATING = "clicked", "request", "score", "rating"
ROLES = (USER, ITEM, TIME, CLICKED, REQUEST, SCORE, RATING)

EVENT_TYPES = {
    USER: pa.string(),
    ITEM: pa.string(),
    TIME: pa.int64(),
    CLICKED: pa.bool_(),
    REQUEST: pa.string(),
    SCORE: pa.float32(),
}


@dataclasses.dataclass(frozen=True)
class LogFormat:
    """How a domain's log is to be read: names of its fields and what is let through.

    Attributes:
      user, item, time: field names.
      label: field that tells impressions clicked from not clicked; None: all are clicks.
      request: field that names the request an impression belongs to.
      score: field of the score the log gives a candidate.
      rating, min_rating: lines of a lower rating are filtered.
      time_unit: of the time field; events have seconds, or of schema.ORDER the numbers as they are.
      max_time: seconds; later times are rejected as far future.
      max_line_bytes: longer lines are rejected.
    """

    user: str = "user_id"
    item: str = "item_id"
    time: str = "timestamp"
    label: str | None = None
    request: str | None = None
    score: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    time_unit: str = "s"
    max_time: int = 4_102_444_800
    max_line_bytes: int = 1 << 20

    @property
    def fields(self) -> dict[str, str]:
        """Names in the log by role, of the fields that are read."""
        named = {role: getattr(self, "label" if role == CLICKED else role) for role in ROLES}
        return {role: name for role, name in named.items() if name is not None}

    @property
    def schema(self) -> pa.Schema:
        """Of the events: user, item, time, clicked, and request and score if logged."""
        optional = {REQUEST: self.request, SCORE: self.score}
        return pa.schema(
            [(c, t) for c, t in EVENT_TYPES.items() if optional.get(c, "") is not None]
        )


def option_names(log: LogFormat, domain: str) -> dict[str, str]:
    """By field that is read, the job's option that names it: `formats.source.user`."""
    return {
        field: f"formats.{domain}.{'label' if role == CLICKED else role}"
        for role, field in log.fields.items()
    }


def check_columns(path: str, columns: Collection[str], log: LogFormat, domain: str) -> None:
    """
    Raises:
      InputError: a file lacks a column that is read, or has it twice.
    """
    check_once(path, columns, log.fields.values())
    for field, option in option_names(log, domain).items():
        if field not in columns:
            raise InputError(
                f"{path} has no column {field}: it has {', '.join(columns)}: check {option}"
            )


def check_once(path: str, columns: Collection[str], wanted: Iterable[str]) -> None:
    """
    Raises:
      InputError: a file has two columns of a name that is wanted.
    """
    listed = list(columns)
    for field in wanted:
        if listed.count(field) > 1:
            raise InputError(
                f"{path} has {listed.count(field)} columns {field}: which counts can't be told",
                "rename the others",
            )


def missing(field: str) -> str:
    """The reason of a line without a field."""
    return f"missing field {field}"


def wrong_type(field: str) -> str:
    """The reason of a line with a value that is not of its field's kind."""
    return f"wrong type in {field}"


def far_future(field: str) -> str:
    """The reason of a line whose time is past `LogFormat.max_time`."""
    return f"{field} in the far future"
