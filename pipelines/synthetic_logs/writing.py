"""Knobs to a folder of logs, items and a summary of what they hold."""

import contextlib
import dataclasses
import gzip
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from pipelines.synthetic_logs.events import SCORE_UNITS, Events, make_source, make_target
from pipelines.synthetic_logs.interests import Items, make_items, make_users
from pipelines.synthetic_logs.knobs import CHUNK_USERS, Ints, Knobs
from pipelines.synthetic_logs.lines import CHUNK_ITEMS, format_events, format_items
from sitn_tf import schema, whole_files
from sitn_tf.errors import InputError

SUMMARY_FILE = "synthetic.json"

COMPRESSION_LEVEL = 1  # the next levels take twice the time for a tenth of the size
PROGRESS_SECONDS = 2.0


def auc_of_counts(clicked: Ints, unclicked: Ints) -> float | None:
    """AUC from the numbers of clicked and unclicked lines at each score, lowest first.

    Args:
      clicked, unclicked: int64 [S].

    Returns:
      The share of (clicked, unclicked) pairs in the right order, ties half; None
      where there is no pair.
    """
    pairs = int(clicked.sum()) * int(unclicked.sum())
    if not pairs:
        return None
    below = np.cumsum(unclicked) - 0.5 * unclicked
    return float(np.dot(clicked, below)) / pairs


class Tally:
    """Counts of what was written, in memory that does not grow with it."""

    def __init__(self, interests: int) -> None:
        self.lines = dict.fromkeys(schema.DOMAINS, 0)
        self.clicks = dict.fromkeys(schema.DOMAINS, 0)
        self.clicks_of_interest = {d: np.zeros(interests, np.int64) for d in schema.DOMAINS}
        self.shown_at = np.zeros(SCORE_UNITS + 1, np.int64)
        self.clicked_at = np.zeros(SCORE_UNITS + 1, np.int64)

    def add(self, domain: str, events: Events, items: Items) -> None:
        clicked = events.click == 1
        self.lines[domain] += len(events)
        self.clicks[domain] += int(clicked.sum())
        counts = self.clicks_of_interest[domain]
        counts += np.bincount(items.interest[events.item[clicked]], minlength=len(counts))
        if events.score is not None:
            np.add.at(self.shown_at, events.score, 1)
            np.add.at(self.clicked_at, events.score[clicked], 1)

    def best_auc(self) -> float | None:
        """AUC of p over all target lines."""
        return auc_of_counts(self.clicked_at, self.shown_at - self.clicked_at)

    def expected_clicks(self) -> float:
        """Σ p over all target lines."""
        return float(np.dot(self.shown_at, np.arange(SCORE_UNITS + 1)) / SCORE_UNITS)


@contextlib.contextmanager
def _replacing(path: pathlib.Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """A file under a temporary name, which takes its own when all was written."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as raw:
            if compressed:
                # No name and no time in the header: equal logs are equal bytes.
                with gzip.GzipFile("", "wb", COMPRESSION_LEVEL, raw, mtime=0) as stream:
                    yield stream  # type: ignore[misc]
            else:
                yield raw
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def file_names(compressed: bool) -> dict[str, str]:
    """Names of the logs and item files, by the flag of build_dataset that takes them."""
    ending = ".jsonl.gz" if compressed else ".jsonl"
    logs = {f"{domain}_log": domain + ending for domain in schema.DOMAINS}
    return logs | {f"{domain}_items": f"{domain}_items{ending}" for domain in schema.DOMAINS}


def write(
    knobs: Knobs, output: str | pathlib.Path, *, compressed: bool = True, overwrite: bool = False
) -> dict[str, Any]:
    """Writes the logs, the items and `synthetic.json` into `output`.

    Returns:
      What `synthetic.json` holds: knobs, files, numbers of lines, clicks and items,
      `ctr` (clicks by target line), `mean_score` (what it is expected to be) and
      `best_auc` (of p, over all target lines; None without a click or without a miss).

    Raises:
      InputError: `output` cannot be written to, or holds files that are not to be overwritten.
    """
    output = pathlib.Path(output)
    names = file_names(compressed)
    try:
        if not overwrite and output.is_dir() and any(output.iterdir()):
            whole = (output / SUMMARY_FILE).is_file()
            raise InputError(
                f"output={output} holds {'synthetic logs' if whole else 'other files'} already",
                "give an empty directory, or overwrite=True",
            )
        output.mkdir(parents=True, exist_ok=True)
        # Present means whole, also while old logs are being replaced.
        if (output / SUMMARY_FILE).is_file():
            (output / SUMMARY_FILE).unlink()
            for name in file_names(not compressed).values():  # patterns would match both
                (output / name).unlink(missing_ok=True)
        items = {domain: make_items(knobs, domain) for domain in schema.DOMAINS}
        for domain in schema.DOMAINS:
            path = output / names[f"{domain}_items"]
            with _replacing(path, compressed=compressed) as stream:
                for part in range(-(-knobs.items(domain) // CHUNK_ITEMS)):
                    stream.write(format_items(knobs, domain, items[domain], part))
        tally = _write_logs(knobs, items, output, names, compressed)
        summary = _summary(knobs, items, tally, names)
        whole_files.write_json(output / SUMMARY_FILE, summary)
    except OSError as error:
        raise InputError(f"output={output} cannot be written: {error.strerror}") from error
    return summary


def _write_logs(
    knobs: Knobs,
    items: dict[str, Items],
    output: pathlib.Path,
    names: dict[str, str],
    compressed: bool,
) -> Tally:
    tally = Tally(knobs.interests)
    make = {schema.SOURCE: make_source, schema.TARGET: make_target}
    shown = time.monotonic()
    with contextlib.ExitStack() as stack:
        streams = {
            domain: stack.enter_context(
                _replacing(output / names[f"{domain}_log"], compressed=compressed)
            )
            for domain in schema.DOMAINS
        }
        for chunk in range(knobs.chunks):
            users = make_users(knobs, chunk)
            for domain, stream in streams.items():
                events = make[domain](knobs, items[domain], users[domain], chunk)
                stream.write(format_events(events, domain))
                tally.add(domain, events, items[domain])
            if time.monotonic() - shown > PROGRESS_SECONDS or chunk == knobs.chunks - 1:
                shown = time.monotonic()
                done = min(knobs.users, (chunk + 1) * CHUNK_USERS)
                lines = sum(tally.lines.values())
                print(f"{done:,} of {knobs.users:,} users, {lines:,} lines", file=sys.stderr)
    return tally


def _summary(
    knobs: Knobs, items: dict[str, Items], tally: Tally, names: dict[str, str]
) -> dict[str, Any]:
    target_lines = tally.lines[schema.TARGET]
    best = tally.best_auc()
    return {
        "knobs": dataclasses.asdict(knobs),
        "files": names,
        "lines": tally.lines,
        "clicks": tally.clicks,
        "requests": target_lines // knobs.candidates,
        "ctr": round(tally.clicks[schema.TARGET] / target_lines, 6) if target_lines else None,
        "mean_score": round(tally.expected_clicks() / target_lines, 6) if target_lines else None,
        "best_auc": None if best is None else round(best, 6),
        "planted": {
            domain: {
                "items_of_interest": np.bincount(items[domain].interest).tolist(),
                "clicks_of_interest": tally.clicks_of_interest[domain].tolist(),
            }
            for domain in schema.DOMAINS
        },
    }
