"""Statistics as one self-contained HTML page with pictures, for people."""

import datetime
from collections import Counter

from pipelines.statistics.charts import bars, day_name, parts, shares
from pipelines.statistics.feature_statistics import DAY, FeatureStatistics, Statistics
from sitn_tf import schema
from sitn_tf.pages import figures
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Section, Table, page
from sitn_tf.pages.pictures import Line, curves

_COLOURS = dict(zip(schema.DOMAINS, figures.SERIES, strict=False))
_RECORDS_HEAD = ["stage and split", "records", "of (UTC)"]
_BOTH = figures.SERIES[2]
_ID_FEATURES = {
    schema.SOURCE_HISTORY.name: schema.SOURCE,
    schema.TARGET_HISTORY.name: schema.TARGET,
    schema.CANDIDATES.name: schema.TARGET,
}


def render(statistics: Statistics, manifest: schema.Manifest) -> str:
    """The whole page."""
    return page(
        f"Data set {manifest.dataset_hash[:12]}",
        "What is in the records, and where the lines of the logs went.",
        [
            _records(manifest),
            _lines(manifest),
            _users(statistics),
            Section("Clicks by day", body=[
                "Days in UTC.",
                *_bars_by_domain(statistics.clicks_by_day, "day", "clicks", "day"),
            ]),
            Section("Clicks of a user", body=[
                "How many users have how many clicks in the whole log; bars span powers of two.",
                *_bars_by_domain(statistics.clicks_per_user, "clicks of a user", "users", "power"),
            ]),
            Section("Popularity in the training period", body=[
                "Share of all clicks that the most popular items have together.",
                curves(
                    "both domains",
                    [
                        Line(domain, [rank for rank, _, _ in points], [s for _, _, s in points])
                        for domain, points in statistics.popularity.items()
                    ],
                    "items, the most popular first", "share of clicks", log_x=True, share=True,
                ),
            ]),
            _lengths(statistics, manifest),
            _coverage(statistics, manifest),
            _features(statistics),
        ],
    )  # fmt: skip


def _bars_by_domain(
    counts: dict[str, Counter[int]], x_title: str, y_title: str, kind: str
) -> list[Picture]:
    return [
        bars(
            f"{domain} domain", sorted(of_domain.items()), _COLOURS[domain], x_title, y_title, kind
        )
        for domain, of_domain in counts.items()
    ]


def _records(manifest: schema.Manifest) -> Section:
    """Records by stage and split, and the period of each split."""
    edges = [manifest.split.get(name) for name in ("train_until", "validation_until")]
    moments = [str(datetime.datetime.fromtimestamp(e, datetime.UTC))[:19] for e in edges if e]
    periods = ["each user's requests", "each user's last but one", "each user's last"]
    if len(moments) == len(edges):
        periods = [f"before {moments[0]}", f"{moments[0]} to {moments[1]}", f"from {moments[1]}"]
    rows = [
        [f"{stage}, {split}", f"{manifest.records[stage][split]:,}", period]
        for stage in schema.STAGE_OF_REQUESTS.values()
        if stage in manifest.records
        for split, period in zip(schema.STAGE2_SPLITS, periods, strict=True)
        if split in manifest.records[stage]
    ]
    rows += [
        [f"{schema.STAGE1}, {split}", f"{count:,}", "users before the training cutoff"]
        for split, count in manifest.records[schema.STAGE1].items()
    ]
    return Section("Records", body=[Table("By stage and split", _RECORDS_HEAD, rows)])


def _lines(manifest: schema.Manifest) -> Section:
    """How many lines each log has, and why some are not used."""
    lines = [
        [what, *(f"{n:,}" for n in (counts["total"], counts["used"],
                                    sum(counts["filtered"].values()),
                                    sum(counts["rejected"].values())))]
        for what, counts in manifest.lines.items()
    ]  # fmt: skip
    rules = [
        [what, kind, rule, f"{count:,}"]
        for what, counts in manifest.lines.items()
        for kind in ("filtered", "rejected")
        for rule, count in counts[kind].items()
    ]
    tables = [Table("By log", ["log", "total", "used", "filtered", "rejected"], lines)]
    if rules:
        tables.append(Table("Not used", ["log", "", "rule or reason", "lines"], rules))
    return Section("Lines", body=tables)


def _users(statistics: Statistics) -> Section:
    users = statistics.users
    both = users["both"]
    return Section(
        "Users",
        body=[
            "Only users of both domains can carry anything from one to the other.",
            parts(
                "overlap of users",
                [
                    (f"{schema.SOURCE} clicks only", users[schema.SOURCE] - both,
                     _COLOURS[schema.SOURCE]),
                    ("clicks in both", both, _BOTH),
                    (f"{schema.TARGET} clicks only", users[schema.TARGET] - both,
                     _COLOURS[schema.TARGET]),
                ],
            ),
            shares(
                "users who have clicks in the other domain too",
                [
                    (f"of {users[domain]:,} {domain} users", both / max(1, users[domain]),
                     _COLOURS[domain])
                    for domain in schema.DOMAINS
                ],
            ),
        ],
    )  # fmt: skip


def _lengths(statistics: Statistics, manifest: schema.Manifest) -> Section:
    pictures = []
    for stage, split in ((schema.STAGE1, schema.TRAIN), (schema.STAGE2, schema.TRAIN),
                         (schema.STAGE2, schema.TEST)):  # fmt: skip
        for domain, history in schema.HISTORY_OF_DOMAIN.items():
            feature = statistics.features.get(f"{stage}/{split}/{history.name}")
            values = sorted(feature.lengths.buckets.items()) if feature else []
            pictures.append(
                bars(f"{stage} {split}, {domain} history", values, _COLOURS[domain],
                     "clicks in the history", "records")
            )  # fmt: skip
    note = f"Histories are cut to the latest {manifest.max_history} clicks."
    return Section("Lengths of histories", body=[note, *pictures])


def _coverage(statistics: Statistics, manifest: schema.Manifest) -> Section:
    """How much of the data later steps can make something of."""
    with_history, known = [], []
    for split in schema.STAGE2_SPLITS:
        for domain, history in schema.HISTORY_OF_DOMAIN.items():
            feature = statistics.features.get(f"{schema.STAGE2}/{split}/{history.name}")
            if feature and feature.records:
                filled = 1 - feature.lengths.zeros / feature.records
                with_history.append((f"{split}, {domain} history", filled, _COLOURS[domain]))
        for name, domain in _ID_FEATURES.items():
            feature = statistics.features.get(f"{schema.STAGE2}/{split}/{name}")
            if feature and feature.values.count:
                share = 1 - feature.values.unknown / feature.values.count
                known.append((f"{split}, {name}", share, _COLOURS[domain]))
    described = [
        (f"{entry['described']:,} of {entry['size'] - schema.FIRST_ID:,} {domain} items",
         entry["described"] / max(1, entry["size"] - schema.FIRST_ID), _COLOURS[domain])
        for domain in schema.DOMAINS
        if "described" in (entry := manifest.vocabularies[
            schema.vocabulary_name(domain, schema.ITEM)])
    ]  # fmt: skip
    pictures = [
        shares("requests with a history", with_history),
        shares("ids of items of the training period", known),
    ]
    if described:
        pictures.append(shares("items that the item files describe", described))
    return Section(
        "Coverage", body=["Shares of requests, of ids in them, and of items.", *pictures]
    )


def _features(statistics: Statistics) -> Section:
    rows = [
        [key, f"{feature.records:,}", f"{feature.lengths.mean:.2f}", _share_empty(feature),
         _range(key, feature), _known(feature)]
        for key, feature in sorted(statistics.features.items())
    ]  # fmt: skip
    head = ["feature", "records", "values a record", "empty", "values", "unknown items"]
    return Section("Features", body=[Table("By stage and split", head, rows)])


def _share_empty(feature: FeatureStatistics) -> str:
    return f"{feature.lengths.zeros / feature.records:.1%}" if feature.records else ""


def _known(feature: FeatureStatistics) -> str:
    return f"{feature.values.unknown / feature.values.count:.2%}" if feature.values.unknown else ""


def _range(key: str, feature: FeatureStatistics) -> str:
    if not feature.values.count or key.endswith(schema.USER_ID.name):
        return ""
    low, high = feature.values.low, feature.values.high
    if key.endswith("_time"):
        return f"{day_name(low // DAY)} to {day_name(high // DAY)}"
    return f"{low:g} to {high:g}, mean {feature.values.mean:.4g}"
