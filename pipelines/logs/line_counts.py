"""Where every input line ended: used, filtered by a rule or rejected for a reason."""

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipelines.logs.parsed import Parsed

MAX_BUCKETS = 1 << 16


def days(span: Sequence[int]) -> str:
    """Unix seconds of a period's begin and end as days: 2020-09-13 to 2020-10-22."""
    return " to ".join(str(np.datetime64(int(time), "s").astype("M8[D]")) for time in span)


@dataclasses.dataclass(frozen=True)
class Account:
    """Where all lines (or requests) ended: total = used + filtered + rejected.

    Attributes:
      filtered, rejected: counts by rule and by reason.
      carried: events of the data set that was extended; they count as lines. None for none.
      merged: of the used lines, those of a request's candidate that an earlier line names, such
        as the click of an impression. None for none.
      period: Unix seconds of the oldest and the newest click read, to a bucket of TimeHistogram.
    """

    total: int
    used: int
    filtered: dict[str, int]
    rejected: dict[str, int]
    carried: int | None = None
    merged: int | None = None
    period: list[int] | None = None

    @property
    def placed(self) -> int:
        return self.used + sum(self.filtered.values()) + sum(self.rejected.values())

    def check(self, what: str) -> None:
        """Every line in exactly one place.

        Raises:
          RuntimeError: the sums don't add up, a bug.
        """
        if self.placed != self.total:
            raise RuntimeError(
                f"{what}: {self.total} lines came in, {self.placed} are accounted for"
            )


@dataclasses.dataclass(frozen=True)
class TimeHistogram:
    """Counts of times in buckets of 2**level; merges to the same whatever the order.

    The level is the lowest at which all times fill at most MAX_BUCKETS buckets. A part
    never needs a higher level than the whole, so parts merged in any order agree.

    Attributes:
      level: log2 of the bucket's width in seconds.
      buckets: int64 [m], ascending: time >> level.
      counts: int64 [m].
    """

    level: int = 0
    buckets: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))
    counts: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def of(cls, times: np.ndarray) -> "TimeHistogram":
        return cls._summed(0, times, np.ones(len(times), np.int64))

    @classmethod
    def _summed(cls, level: int, buckets: np.ndarray, counts: np.ndarray) -> "TimeHistogram":
        unique, inverse = np.unique(buckets, return_inverse=True)
        sums = np.bincount(inverse, counts, len(unique)).astype(np.int64)
        if len(unique) > MAX_BUCKETS:
            return cls._summed(level + 1, unique >> 1, sums)
        return cls(level, unique, sums)

    def merge(self, other: "TimeHistogram") -> "TimeHistogram":
        level = max(self.level, other.level)
        parts = (self, other)
        buckets = np.concatenate([p.buckets >> (level - p.level) for p in parts])
        return self._summed(level, buckets, np.concatenate([p.counts for p in parts]))

    def span(self) -> tuple[int, int]:
        """The oldest and the newest time, to the width of a bucket; there must be one."""
        return int(self.buckets[0] << self.level), int(self.buckets[-1] << self.level)

    def quantile(self, share: float) -> int:
        """The first bucket boundary before which at least `share` of the times lie."""
        if not len(self.counts):
            raise ValueError("a histogram of no times has no quantile")
        reached = np.cumsum(self.counts) >= share * self.counts.sum() - 1e-9
        return int((self.buckets[np.argmax(reached)] + 1) << self.level)


@dataclasses.dataclass
class LineCounts:
    """What became of the lines of one domain's log, as far as parsing knows.

    Attributes:
      total, events: lines, and those that are events (or items).
      filtered, rejected: counts by rule and by reason.
      examples: by reason, where such a line is; fields: the fields it has, where that is known.
      times: of the clicks.
      reject_files: (input, position, path) of the rejects.
    """

    total: int = 0
    events: int = 0
    filtered: Counter[str] = dataclasses.field(default_factory=Counter)
    rejected: Counter[str] = dataclasses.field(default_factory=Counter)
    examples: dict[str, str] = dataclasses.field(default_factory=dict)
    fields: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    times: TimeHistogram = dataclasses.field(default_factory=TimeHistogram)
    reject_files: list[tuple[int, int, str]] = dataclasses.field(default_factory=list)

    @classmethod
    def of(cls, block: Parsed) -> "LineCounts":
        """Of a block's lines, the numbers alone."""
        reasons = Counter(reject.reason for reject in block.rejects)
        return cls(block.lines, len(block.events), Counter(block.filtered), reasons)

    def merge(self, other: "LineCounts") -> "LineCounts":
        """The sum; of the examples of a reason the first by text."""
        examples, fields = dict(self.examples), dict(self.fields)
        for reason, example in other.examples.items():
            if example <= examples.get(reason, example):
                examples[reason] = example
                fields[reason] = other.fields.get(reason, ())
        return LineCounts(
            self.total + other.total,
            self.events + other.events,
            self.filtered + other.filtered,
            self.rejected + other.rejected,
            examples,
            fields,
            self.times.merge(other.times),
            self.reject_files + other.reject_files,
        )

    def account(self, later: Counter[str], carried: int, merged: int = 0) -> Account:
        """For the manifest.

        Args:
          later: events filtered after parsing, by rule.
          carried: events of the data set that was extended.
          merged: lines of candidates that have another line.
        """
        return Account(
            total=self.total + carried,
            used=self.events + carried - later.total(),
            filtered=dict(sorted((self.filtered + later).items())),
            rejected=dict(sorted(self.rejected.items())),
            carried=carried or None,
            merged=merged or None,
            period=list(self.times.span()) if len(self.times.counts) else None,
        )

    @property
    def reject_rate(self) -> float:
        return sum(self.rejected.values()) / self.total if self.total else 0.0

    def top_reasons(self, how_many: int = 3) -> str:
        return "; ".join(
            f"{reason}: {count:,} (such as {self.examples[reason]})"
            for reason, count in self.rejected.most_common(how_many)
        )
