"""Statistics as one self-contained HTML page with pictures, for people."""

import datetime
import html
from collections.abc import Sequence

from pipelines.statistics.charts import bars, curve, day_name, parts, shares
from pipelines.statistics.feature_statistics import DAY, FeatureStatistics, Statistics
from sitn_tf import schema

_COLOURS = {schema.SOURCE: "#3b6fb6", schema.TARGET: "#d2691e"}
_BOTH = "#7a5195"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1000px; padding: 0 1rem;
       color: #222; background: #fff; }
h2 { margin: 2rem 0 .4rem; border-bottom: 2px solid #eee; }
table { border-collapse: collapse; margin: .6rem 0 1.2rem; }
th, td { padding: .15rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.row { display: flex; flex-wrap: wrap; gap: 1rem 1.6rem; }
figure { margin: .4rem 0; }
figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { background: #fafafa; }
.note { color: #666; margin: .2rem 0 .6rem; }
"""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _section(title: str, note: str, *figures: str) -> str:
    """A heading, a sentence, and figures side by side."""
    return (
        f"<h2>{title}</h2><p class='note'>{html.escape(note)}</p>"
        f"<div class='row'>{''.join(figures)}</div>"
    )


def render(statistics: Statistics, manifest: schema.Manifest) -> str:
    """The whole page."""
    found = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Data set statistics</title>",
        f"<style>{_STYLE}</style><h1>Data set {html.escape(manifest.dataset_hash[:12])}</h1>",
        _records(manifest),
        _lines(manifest),
        _users(statistics),
        _section(
            "Clicks by day",
            "Days in UTC.",
            *(
                bars(f"{domain} domain", sorted(days.items()), _COLOURS[domain],
                     "day", "clicks", "day")
                for domain, days in statistics.clicks_by_day.items()
            ),
        ),
        _section(
            "Clicks of a user",
            "How many users have how many clicks in the whole log; bars span powers of two.",
            *(
                bars(f"{domain} domain", sorted(users.items()), _COLOURS[domain],
                     "clicks of a user", "users", "power")
                for domain, users in statistics.clicks_per_user.items()
            ),
        ),
        _section(
            "Popularity in the training period",
            "Share of all clicks that the most popular items have together.",
            *(
                curve(f"{domain} domain", [(rank, share) for rank, _, share in points],
                      _COLOURS[domain], "items, the most popular first", "share of clicks")
                for domain, points in statistics.popularity.items()
            ),
        ),
        _lengths(statistics, manifest),
        _coverage(statistics, manifest),
        "<h2>Features</h2>",
        _features(statistics),
        "</html>",
    ]  # fmt: skip
    return "\n".join(found)


def _records(manifest: schema.Manifest) -> str:
    """Records by stage and split, and the period of each split."""
    edges = [manifest.split.get(name) for name in ("train_until", "validation_until")]
    moments = [str(datetime.datetime.fromtimestamp(e, datetime.UTC))[:19] for e in edges if e]
    periods = ["each user's requests", "each user's last but one", "each user's last"]
    if len(moments) == len(edges):
        periods = [f"before {moments[0]}", f"{moments[0]} to {moments[1]}", f"from {moments[1]}"]
    rows = [
        [f"{schema.STAGE2}, {split}", f"{manifest.records[schema.STAGE2][split]:,}", period]
        for split, period in zip(schema.STAGE2_SPLITS, periods, strict=True)
    ]
    rows += [
        [f"{schema.STAGE1}, {split}", f"{count:,}", "users before the training cutoff"]
        for split, count in manifest.records[schema.STAGE1].items()
    ]
    return "<h2>Records</h2>" + table(["", "records", "of (UTC)"], rows)


def _lines(manifest: schema.Manifest) -> str:
    rows = [
        [what, *(f"{n:,}" for n in (found["total"], found["used"], sum(found["filtered"].values()),
                                    sum(found["rejected"].values())))]
        for what, found in manifest.lines.items()
    ]  # fmt: skip
    details = [
        [what, kind, rule, f"{count:,}"]
        for what, found in manifest.lines.items()
        for kind in ("filtered", "rejected")
        for rule, count in found[kind].items()
    ]
    text = "<h2>Lines</h2>" + table(["", "total", "used", "filtered", "rejected"], rows)
    return text + (table(["", "", "rule or reason", "lines"], details) if details else "")


def _users(statistics: Statistics) -> str:
    users = statistics.users
    both = users["both"]
    alone = {domain: users[domain] - both for domain in schema.DOMAINS}
    return _section(
        "Users",
        "Only users of both domains can carry anything from one to the other.",
        parts(
            "overlap of users",
            [
                (f"{schema.SOURCE} clicks only", alone[schema.SOURCE], _COLOURS[schema.SOURCE]),
                ("clicks in both", both, _BOTH),
                (f"{schema.TARGET} clicks only", alone[schema.TARGET], _COLOURS[schema.TARGET]),
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
    )  # fmt: skip


def _lengths(statistics: Statistics, manifest: schema.Manifest) -> str:
    figures = []
    for stage, split in ((schema.STAGE1, schema.TRAIN), (schema.STAGE2, schema.TRAIN),
                         (schema.STAGE2, schema.TEST)):  # fmt: skip
        for domain, feature in schema.HISTORY_OF_DOMAIN.items():
            found = statistics.features.get(f"{stage}/{split}/{feature.name}")
            values = sorted(found.lengths.buckets.items()) if found else []
            figures.append(
                bars(f"{stage} {split}, {domain} history", values, _COLOURS[domain],
                     "clicks in the history", "records")
            )  # fmt: skip
    note = f"Histories are cut to the latest {manifest.max_history} clicks."
    return _section("Lengths of histories", note, *figures)


def _coverage(statistics: Statistics, manifest: schema.Manifest) -> str:
    """How much of the data later steps can make something of."""
    with_history, known = [], []
    for split in schema.STAGE2_SPLITS:
        for domain, feature in schema.HISTORY_OF_DOMAIN.items():
            found = statistics.features.get(f"{schema.STAGE2}/{split}/{feature.name}")
            if found and found.records:
                filled = 1 - found.lengths.zeros / found.records
                with_history.append((f"{split}, {domain} history", filled, _COLOURS[domain]))
        for name, domain in _ID_FEATURES.items():
            found = statistics.features.get(f"{schema.STAGE2}/{split}/{name}")
            if found and found.values.count:
                share = 1 - found.values.unknown / found.values.count
                known.append((f"{split}, {name}", share, _COLOURS[domain]))
    described = [
        (f"{entry['described']:,} of {entry['size'] - schema.FIRST_ID:,} {domain} items",
         entry["described"] / max(1, entry["size"] - schema.FIRST_ID), _COLOURS[domain])
        for domain in schema.DOMAINS
        if "described" in (entry := manifest.vocabularies[
            schema.vocabulary_name(domain, schema.ITEM)])
    ]  # fmt: skip
    figures = [
        shares("requests with a history", with_history),
        shares("ids of items of the training period", known),
    ]
    if described:
        figures.append(shares("items that the item files describe", described))
    return _section("Coverage", "Shares of requests, of ids in them, and of items.", *figures)


_ID_FEATURES = {
    schema.SOURCE_HISTORY.name: schema.SOURCE,
    schema.TARGET_HISTORY.name: schema.TARGET,
    schema.CANDIDATES.name: schema.TARGET,
}


def _features(statistics: Statistics) -> str:
    rows = []
    for key, found in sorted(statistics.features.items()):
        rows.append([key, f"{found.records:,}", f"{found.lengths.mean:.2f}", _share_empty(found),
                     _range(key, found), _known(found)])  # fmt: skip
    head = ["", "records", "values a record", "empty", "values", "unknown items"]
    return table(head, rows)


def _share_empty(found: FeatureStatistics) -> str:
    return f"{found.lengths.zeros / found.records:.1%}" if found.records else ""


def _known(found: FeatureStatistics) -> str:
    return f"{found.values.unknown / found.values.count:.2%}" if found.values.unknown else ""


def _range(key: str, found: FeatureStatistics) -> str:
    if not found.values.count or key.endswith(schema.USER_ID.name):
        return ""
    low, high = found.values.low, found.values.high
    if key.endswith("_time"):
        return f"{day_name(low // DAY)} to {day_name(high // DAY)}"
    return f"{low:g} to {high:g}, mean {found.values.mean:.4g}"
