"""Statistics of every feature and split: gathered by shard, merged, described for TFDV.

A shard's part merges with others in any order and on any runner.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipelines.records import examples
from pipelines.records.stage_records import Chunk, Shard
from sitn_tf import schema

DAY = 86_400
_SORTED_FROM = 1 << 16
"""Width of the range of buckets that are not counted in an array of it: sorting takes longer."""
STATISTICS_JSON = "statistics.json"
STATISTICS_PROTO = "statistics.pb"

_CLICK_TIMES = {feature.name: domain for domain, feature in schema.TIMES_OF_DOMAIN.items()}
_TIMES = (
    schema.CUTOFF_TIME.name,
    schema.HISTORY_TIME.name,
    schema.REQUEST_TIME.name,
    *_CLICK_TIMES,
)
_IDS = tuple(
    feature.name
    for features in (schema.HISTORY_OF_DOMAIN, schema.CANDIDATES_OF_DOMAIN)
    for feature in features.values()
)
_HISTORIES = {feature.name: domain for domain, feature in schema.HISTORY_OF_DOMAIN.items()}


@dataclasses.dataclass
class Numbers:
    """Moments, extremes and a histogram of numbers; mergeable.

    `buckets` counts by days of a time, by powers of two of an id, by hundredths of a score,
    and by value otherwise (see `bucket_bounds`).
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    zeros: int = 0
    unknown: int = 0
    low: float = math.inf
    high: float = -math.inf
    buckets: Counter[int] = dataclasses.field(default_factory=Counter)

    @classmethod
    def of(cls, name: str, values: np.ndarray, weights: np.ndarray | None = None) -> "Numbers":
        """Of values [n], each counted `weights` [n] times (once by default)."""
        if weights is not None:
            values, weights = values[weights > 0], weights[weights > 0]
        if not len(values):
            return cls()
        exact = values.astype(np.float64)

        def counted(which: np.ndarray) -> int:
            return int((which if weights is None else weights[which]).sum())

        def summed(numbers: np.ndarray) -> float:
            return float((numbers if weights is None else numbers * weights).sum())

        return cls(
            len(values) if weights is None else int(weights.sum()),
            summed(exact),
            summed(exact**2),
            counted(values == 0),
            counted(values == schema.OOV_ID) if name in _IDS else 0,
            float(values.min()),
            float(values.max()),
            _counts(_buckets(name, values), weights),
        )

    def merge(self, other: "Numbers") -> "Numbers":
        return Numbers(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.zeros + other.zeros,
            self.unknown + other.unknown,
            min(self.low, other.low),
            max(self.high, other.high),
            self.buckets + other.buckets,
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    @property
    def deviation(self) -> float:
        if not self.count:
            return 0.0
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2))

    def quantile(self, name: str, share: float) -> float:
        """Lower bound of the bucket that the quantile falls in: exact for small integers."""
        seen = 0
        for bucket in sorted(self.buckets):
            seen += self.buckets[bucket]
            if seen >= share * self.count:
                return max(self.low, bucket_bounds(name, bucket)[0])
        return 0.0


def _buckets(name: str, values: np.ndarray) -> np.ndarray:
    if name in _TIMES:
        return values // DAY
    if name in _IDS:
        return np.frexp(values.astype(np.float64))[1]  # 2**(b - 1) <= id < 2**b
    if values.dtype.kind == "f":
        return np.floor(values * 100).astype(np.int64)
    return values


def _counts(buckets: np.ndarray, weights: np.ndarray | None = None) -> Counter[int]:
    """How often each bucket is there: whole numbers [n], counted `weights` [n] times or once."""
    if not len(buckets):
        return Counter()
    first = int(buckets.min())
    if int(buckets.max()) - first < _SORTED_FROM:
        counts = np.bincount(buckets - first, weights)
        found = np.flatnonzero(counts)
        distinct, counts = found + first, counts[found]
    else:
        distinct, place = np.unique(buckets, return_inverse=True)
        counts = np.bincount(place, weights)
    return Counter(dict(zip(distinct.tolist(), counts.astype(np.int64).tolist(), strict=True)))


def bucket_bounds(name: str, bucket: int) -> tuple[float, float]:
    """The values that a bucket counts: from, and up to but not."""
    if name in _TIMES:
        return bucket * DAY, (bucket + 1) * DAY
    if name in _IDS:
        return (2.0 ** (bucket - 1), 2.0**bucket) if bucket else (0.0, 1.0)
    if name == schema.LOGGED_SCORES.name:
        return bucket / 100, (bucket + 1) / 100
    return bucket, bucket + 1


@dataclasses.dataclass
class FeatureStatistics:
    """One feature of one split: how many values a record has, and what they are."""

    records: int = 0
    lengths: Numbers = dataclasses.field(default_factory=Numbers)
    values: Numbers = dataclasses.field(default_factory=Numbers)

    def merge(self, other: "FeatureStatistics") -> "FeatureStatistics":
        return FeatureStatistics(
            self.records + other.records,
            self.lengths.merge(other.lengths),
            self.values.merge(other.values),
        )


def _by_domain() -> dict[str, Counter[int]]:
    return {domain: Counter() for domain in schema.DOMAINS}


@dataclasses.dataclass
class Statistics:
    """The statistics of a shard or, with the popularity, of a whole data set.

    Attributes:
      features: by "<stage>/<split>/<feature>".
      clicks_by_day: by domain, clicks by day since 1970.
      users: with clicks in the source, in the target, in both.
      clicks_per_user: by domain, users by the power of two of their clicks.
      popularity: by domain, the popularity curve.
    """

    features: dict[str, FeatureStatistics] = dataclasses.field(default_factory=dict)
    clicks_by_day: dict[str, Counter[int]] = dataclasses.field(default_factory=_by_domain)
    users: Counter[str] = dataclasses.field(default_factory=Counter)
    clicks_per_user: dict[str, Counter[int]] = dataclasses.field(default_factory=_by_domain)
    popularity: dict[str, list[list[float]]] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, shards: Iterable["Statistics"], popularity: dict[str, list[list[float]]]
    ) -> "Statistics":
        """Merges the shards'."""
        merged = cls(popularity=popularity)
        for shard in shards:
            for key, more in shard.features.items():
                merged.add(key, more)
            merged.users.update(shard.users)
            for domain in schema.DOMAINS:
                merged.clicks_by_day[domain].update(shard.clicks_by_day[domain])
                merged.clicks_per_user[domain].update(shard.clicks_per_user[domain])
        return merged

    def add(self, key: str, more: FeatureStatistics) -> None:
        """Merges what is known of a feature with more."""
        self.features[key] = self.features.get(key, FeatureStatistics()).merge(more)


class ShardStatistics:
    """Gathers the statistics of a shard's chunks as they are written."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._statistics = Statistics()
        self._cover: dict[tuple[str, str], np.ndarray] = {}

    def add(self, chunk: Chunk) -> None:
        """Counts a chunk's records."""
        place = f"{chunk.stage}/{chunk.split}"
        for feature in chunk.features:
            name = feature.name
            lengths, values = self._look(place, name, chunk.columns[name])
            of_chunk = FeatureStatistics(chunk.rows, Numbers.of("", lengths), values)
            self._statistics.add(f"{place}/{name}", of_chunk)

    def _look(self, place: str, name: str, column: examples.Column) -> tuple[np.ndarray, Numbers]:
        if isinstance(column, examples.Slices):
            # Histories overlap: how often each click is in one is a running sum, made once.
            clicks = len(self._of_clicks(name))
            cover = self._cover.setdefault((place, name), np.zeros(clicks + 1, np.int64))
            cover += np.bincount(column.start, minlength=clicks + 1)
            cover -= np.bincount(column.stop, minlength=clicks + 1)
            return column.stop - column.start, Numbers()
        if isinstance(column, examples.Ragged):
            return column.lengths, Numbers.of(name, column.values)
        if isinstance(column, np.ndarray):
            return np.ones(len(column), np.int64), Numbers.of(name, column)
        sizes = pc.binary_length(column).to_numpy().astype(np.int64)
        return np.ones(len(sizes), np.int64), Numbers.of(name, sizes)

    def _of_clicks(self, name: str) -> np.ndarray:
        """The column that a feature's rows are ranges of: int64, a value a click."""
        if name in _CLICK_TIMES:
            return self._shard.plan.clicks[_CLICK_TIMES[name]].time
        return self._shard.click_ids[_HISTORIES[name]]

    def summary(self) -> Statistics:
        """The shard's statistics, once all chunks were added."""
        for (place, name), cover in self._cover.items():
            values = Numbers.of(name, self._of_clicks(name), np.cumsum(cover)[:-1])
            self._statistics.add(f"{place}/{name}", FeatureStatistics(values=values))
        clicks = self._shard.plan.clicks
        active = {domain: np.unique(of_domain.user) for domain, of_domain in clicks.items()}
        both = np.intersect1d(active[schema.SOURCE], active[schema.TARGET])
        return dataclasses.replace(
            self._statistics,
            clicks_by_day={d: _counts(c.time // DAY) for d, c in clicks.items()},
            users=Counter({**{d: len(users) for d, users in active.items()}, "both": len(both)}),
            clicks_per_user={d: _activity(c.user) for d, c in clicks.items()},
        )


def _activity(user: np.ndarray) -> Counter[int]:
    """Users by how many clicks they have, in powers of two."""
    clicks = np.bincount(user)
    return _counts(np.frexp(clicks[clicks > 0])[1])


def popularity_curve(counts: np.ndarray) -> list[list[float]]:
    """[rank, clicks of the item at it, share of all clicks up to it], ranks in powers of two."""
    ordered = np.sort(counts)[::-1]
    if not len(ordered) or not ordered[0]:
        return []
    share = np.cumsum(ordered) / ordered.sum()
    ranks = np.unique(np.append(2 ** np.arange(int(np.log2(len(ordered))) + 1), len(ordered)))
    return [[int(r), int(ordered[r - 1]), float(share[r - 1])] for r in ranks]


def as_proto(statistics: Statistics, stages: Mapping[str, Sequence[schema.Feature]]) -> Any:
    """The `tensorflow_metadata` DatasetFeatureStatisticsList, a data set for each split.

    Args:
      stages: the features of the records of each stage that the data set has.
    """
    from tensorflow_metadata.proto.v0 import statistics_pb2

    listed = statistics_pb2.DatasetFeatureStatisticsList()
    for stage, features in stages.items():
        for split in schema.SPLITS[stage]:
            dataset = listed.datasets.add(name=f"{stage}/{split}")
            for feature in features:
                counted = statistics.features.get(f"{stage}/{split}/{feature.name}")
                if counted is not None:
                    dataset.num_examples = counted.records
                    _fill(dataset.features.add(), feature, counted)
    return listed


def _fill(proto: Any, feature: schema.Feature, counted: FeatureStatistics) -> None:
    """One FeatureNameStatistics."""
    types = {"int64": proto.INT, "float32": proto.FLOAT, "bytes": proto.STRING}
    proto.path.step.append(feature.name)
    proto.type = types[feature.dtype]
    is_text = feature.dtype == "bytes"
    common = proto.string_stats.common_stats if is_text else proto.num_stats.common_stats
    common.num_missing = counted.lengths.zeros
    common.num_non_missing = counted.records - counted.lengths.zeros
    common.min_num_values = int(counted.lengths.low) if counted.records else 0
    common.max_num_values = int(counted.lengths.high) if counted.records else 0
    common.avg_num_values = counted.lengths.mean
    common.tot_num_values = int(counted.lengths.total)
    _histogram(common.num_values_histogram, "", counted.lengths)
    if is_text:
        proto.string_stats.avg_length = counted.values.mean
        return
    numbers = proto.num_stats
    numbers.mean, numbers.std_dev = counted.values.mean, counted.values.deviation
    numbers.num_zeros = counted.values.zeros
    if counted.values.count:
        numbers.min, numbers.max = counted.values.low, counted.values.high
        numbers.median = counted.values.quantile(feature.name, 0.5)
    _histogram(numbers.histograms.add(), feature.name, counted.values)


def _histogram(proto: Any, name: str, numbers: Numbers) -> None:
    for bucket in sorted(numbers.buckets):
        low, high = bucket_bounds(name, bucket)
        proto.buckets.add(low_value=low, high_value=high, sample_count=numbers.buckets[bucket])
