"""Statistics as one self-contained HTML page with pictures, for people."""

import datetime
import importlib.resources
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelines.statistics.charts import Picture, bars, curve, day_name, parts, shares
from pipelines.statistics.feature_statistics import DAY, FeatureStatistics, Statistics
from sitn_tf import figures, schema

if TYPE_CHECKING:
    from jinja2 import Template

_COLOURS = dict(zip(schema.DOMAINS, figures.SERIES, strict=False))
_BOTH = figures.SERIES[2]
_ID_FEATURES = {
    schema.SOURCE_HISTORY.name: schema.SOURCE,
    schema.TARGET_HISTORY.name: schema.TARGET,
    schema.CANDIDATES.name: schema.TARGET,
}


class Section(NamedTuple):
    """A heading, a sentence, and pictures side by side."""

    title: str
    note: str
    pictures: Sequence[Picture]


def template() -> "Template":
    """The page without its numbers; texts put into it are escaped."""
    import jinja2

    text = importlib.resources.files(__package__).joinpath("page.html").read_text("utf-8")
    return jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    ).from_string(text)


def render(statistics: Statistics, manifest: schema.Manifest) -> str:
    """The whole page."""
    return template().render(
        dataset=manifest.dataset_hash[:12],
        records=_records(manifest),
        lines=[
            [what, *(f"{n:,}" for n in (counts["total"], counts["used"],
                                        sum(counts["filtered"].values()),
                                        sum(counts["rejected"].values())))]
            for what, counts in manifest.lines.items()
        ],
        rules=[
            [what, kind, rule, f"{count:,}"]
            for what, counts in manifest.lines.items()
            for kind in ("filtered", "rejected")
            for rule, count in counts[kind].items()
        ],
        sections=[
            _users(statistics),
            Section("Clicks by day", "Days in UTC.",
                    _bars_by_domain(statistics.clicks_by_day, "day", "clicks", "day")),
            Section(
                "Clicks of a user",
                "How many users have how many clicks in the whole log; bars span powers of two.",
                _bars_by_domain(statistics.clicks_per_user, "clicks of a user", "users", "power"),
            ),
            Section(
                "Popularity in the training period",
                "Share of all clicks that the most popular items have together.",
                [
                    curve(f"{domain} domain", [(rank, share) for rank, _, share in points],
                          _COLOURS[domain], "items, the most popular first", "share of clicks")
                    for domain, points in statistics.popularity.items()
                ],
            ),
            _lengths(statistics, manifest),
            _coverage(statistics, manifest),
        ],
        features=[
            [key, f"{feature.records:,}", f"{feature.lengths.mean:.2f}", _share_empty(feature),
             _range(key, feature), _known(feature)]
            for key, feature in sorted(statistics.features.items())
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


def _records(manifest: schema.Manifest) -> list[list[str]]:
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
    return rows + [
        [f"{schema.STAGE1}, {split}", f"{count:,}", "users before the training cutoff"]
        for split, count in manifest.records[schema.STAGE1].items()
    ]


def _users(statistics: Statistics) -> Section:
    users = statistics.users
    both = users["both"]
    return Section(
        "Users",
        "Only users of both domains can carry anything from one to the other.",
        [
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
    return Section("Lengths of histories", note, pictures)


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
    return Section("Coverage", "Shares of requests, of ids in them, and of items.", pictures)


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
