"""Columns of a log's fields to events: the rules by which rows are rejected or filtered."""

import math
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.logs import log_format
from pipelines.logs.log_format import LogFormat, far_future, missing
from pipelines.logs.parsed import Parsed, Reject

MAX_ID_BYTES = 512


def judge(
    columns: dict[str, pa.Array], log: LogFormat, describe: Callable[[int], tuple[int, bytes]]
) -> Parsed:
    """Decides row by row, vectorised: rejected (first reason counts), filtered or an event.

    `describe` gives the position and the raw text of a row.
    """
    rows = len(columns[log_format.USER])
    reasons: list[str] = []
    verdict = np.zeros(rows, np.int16)  # 0: fine, else 1 + index into reasons

    def reject(where: pa.Array | np.ndarray, reason: str) -> None:
        bad = np.asarray(where) & (verdict == 0)
        if bad.any():
            reasons.append(reason)
            verdict[bad] = len(reasons)

    for role, name in log.fields.items():
        if role != log_format.SCORE:  # a score is optional
            reject(columns[role].is_null(), missing(name))
    for role in (log_format.USER, log_format.ITEM, log_format.REQUEST):
        if role in columns:
            ids, (empty, long, control) = columns[role].fill_null(""), _id_reasons(log.fields[role])
            reject(pc.equal(pc.binary_length(ids), 0), empty)
            reject(pc.greater(pc.binary_length(ids), MAX_ID_BYTES), long)
            reject(_has_control_character(ids), control)
    times = columns[log_format.TIME].fill_null(0).to_numpy()
    reject(times < 0, f"negative {log.time}")
    reject(times > log.max_time, far_future(log.time))
    rejects = [
        Reject(position, reasons[verdict[row] - 1], raw)
        for row in np.flatnonzero(verdict)
        for position, raw in [describe(int(row))]
    ]
    kept, filtered = verdict == 0, {}
    if log_format.RATING in columns:
        lowest = -math.inf if log.min_rating is None else log.min_rating
        is_low = columns[log_format.RATING].fill_null(0.0).to_numpy() < lowest
        if low := int((kept & is_low).sum()):
            filtered = {"rating_below_minimum": low}
        kept &= ~is_low
    return Parsed(_events(columns, kept, log), rows, filtered, rejects)


def _id_reasons(field: str) -> tuple[str, str, str]:
    return f"empty {field}", f"{field} too long", f"control character in {field}"


def id_reason(value: str, field: str) -> str:
    """Why an id is rejected, "" where it is fine: of one, what `judge` tells of columns."""
    empty, long, control = _id_reasons(field)
    if not value:
        return empty
    if len(value.encode()) > MAX_ID_BYTES:
        return long
    return control if _CONTROL.search(value) else ""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def _has_control_character(ids: pa.Array) -> np.ndarray:
    data = ids.buffers()[2]
    text = np.frombuffer(b"" if data is None else data, np.uint8)
    if not ((text < 32) | (text >= 127)).any():
        return np.zeros(len(ids), bool)
    return np.asarray(pc.match_substring_regex(ids, r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"))


def _events(columns: dict[str, pa.Array], kept: np.ndarray, log: LogFormat) -> pa.Table:
    columns = dict(columns)
    rows = len(columns[log_format.USER])
    if log.label is None:
        columns[log_format.CLICKED] = pa.array(np.ones(rows, bool))
    table = pa.table({f.name: columns[f.name].cast(f.type) for f in log.schema})
    return table if kept.all() else table.filter(pa.array(kept))
