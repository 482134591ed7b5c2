"""The records of a data set against the lines that they were made of.

Events are written by user shard to passing files, so that one shard of them is in memory
at a time, and in it one user's as plain lists.
"""

import collections
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines import facts
from pipelines.logs import event_parser, line_blocks, line_counts, user_hashes
from pipelines.manifest_entries import ITEMS, LOG, REQUESTS, InputFile
from pipelines.options import Job
from pipelines.records import item_files, request_rules, shards, vocabulary
from pipelines.verification import user_events
from pipelines.verification.findings import Findings
from pipelines.verification.record_rules import Record, RecordChecks, candidates_of, clicked_ids
from pipelines.verification.user_events import Events, Request
from sitn_tf import schema

_BLOCK_BYTES = 16 << 20
_USERS_KEPT = 1024
_LINES = "lines are as many as the manifest says"


Expected = tuple[str, int, tuple[Any, ...]]
"""Split, time and content of a request that is to be a record."""


def _told_counts(root: pathlib.Path, domain: str) -> list[np.ndarray]:
    """What the item table says of clicks and impressions: [V] each."""
    names = [schema.COUNT, schema.IMPRESSIONS]
    table = pq.read_table(root / schema.item_table_path(domain), columns=names)
    return [table[name].to_numpy() for name in names]


class Logs:
    """The logs that a manifest names, by user shard, and what is summed over all of them."""

    def __init__(
        self,
        root: pathlib.Path,
        manifest: schema.Manifest,
        job: Job,
        findings: Findings,
        folder: pathlib.Path,
        user_key: bytes | None = None,
    ) -> None:
        """Reads the logs; events go to files in `folder`, under hashed ids where there is a key."""
        self.root, self.manifest, self.job, self.findings = root, manifest, job, findings
        self._folder, self._user_key = folder, user_key
        self.tokens = {
            domain: vocabulary.read_text(str(root / schema.vocabulary_path(domain, schema.ITEM)))
            for domain in schema.DOMAINS
        }
        self.told = {domain: _told_counts(root, domain) for domain in schema.DOMAINS}
        self._dropped: collections.Counter[str] = collections.Counter()
        self._parts: dict[tuple[str, int], list[shards.Part]] = collections.defaultdict(list)
        self._counts = {domain: self._read(domain) for domain in schema.DOMAINS}
        size = {domain: len(tokens) + schema.FIRST_ID for domain, tokens in self.tokens.items()}
        self.clicks = {domain: np.zeros(size[domain], np.int64) for domain in schema.DOMAINS}
        self.shown = {domain: np.zeros(size[domain], np.int64) for domain in schema.DOMAINS}
        self.shown_unknown: dict[str, collections.Counter[str]] = {
            domain: collections.Counter() for domain in schema.DOMAINS
        }
        self.requests: collections.Counter[str] = collections.Counter()
        self.merged: collections.Counter[str] = collections.Counter()
        self.lost: dict[str, list[tuple[Any, ...]]] = collections.defaultdict(list)
        self.lost_requests: collections.Counter[str] = collections.Counter()

    def _units(self, domain: str, kind: str) -> Iterator[tuple[InputFile, line_blocks.Unit]]:
        """The units of the files that the manifest names, each with how it was read."""
        for told in self.manifest.inputs:
            file = facts.from_json(InputFile, told)
            if (file.domain, file.kind) == (domain, kind):
                known = file.file_format or self.job.file_format
                units = line_blocks.units_at(file.path, known, _BLOCK_BYTES)
                yield from ((file, unit) for unit in units)

    def _read(self, domain: str) -> line_counts.LineCounts:
        counts = line_counts.LineCounts()
        for file, unit in self._units(domain, LOG):
            log = file.log or self.job.formats[domain]
            for _, block in event_parser.parse_unit(unit, log, _BLOCK_BYTES, domain):
                if self._user_key is not None:
                    block = user_hashes.hash_users(block, self._user_key)
                counts = counts.merge(line_counts.LineCounts.of(block))
                order = (counts.total, 0)
                path = self._folder / f"{domain}-{counts.total}"
                for shard, part in shards.spill(
                    block.events, self.job.shards, str(path), domain, order
                ):
                    group = shards.group_of(shard, self.job.shards, self.job.groups)
                    self._parts[domain, group].append(part)
        return counts

    def shard(self, number: int) -> "ShardOfLogs":
        """The events of a group of user shards."""
        events = {}
        for domain in schema.DOMAINS:
            table, dropped = shards.load(
                (events for _, events in shards.in_files(self._parts[domain, number])),
                self.job.formats[domain].schema,
                self.job.max_user_events,
            )
            self._dropped[domain] += sum(dropped.values())
            events[domain] = Events(table, self.tokens[domain])
        return ShardOfLogs(self, events)

    def finish(self) -> None:
        """With all shards seen: what holds of their sums."""
        for domain, counts in self._counts.items():
            self._check_lines(domain, counts, self._dropped[domain])
            items, width = line_counts.LineCounts(), self.manifest.vectors.get("width", 0)
            described: list[pa.Array] = []
            for file, unit in self._units(domain, ITEMS):
                fields = file.items or self.job.item_fields
                for _, block in item_files.parse_items(unit, fields, _BLOCK_BYTES, width):
                    items = items.merge(line_counts.LineCounts.of(block))
                    if not self.job.min_item_count:
                        described += block.events[schema.ITEM].chunks
            self._check_lines(f"{domain}_items", items, 0)
            self._check_counts(domain, pa.chunked_array(described, pa.string()))
        for what, domain in REQUESTS.items():
            if what in self.manifest.lines:
                self._check_requests(what, domain)

    def _check_requests(self, what: str, domain: str) -> None:
        """A domain's requests are as many as the manifest says, and all of them records."""
        told, lost = self._told(what), self.lost_requests[domain]
        # which clicks have no negatives left depends on what was drawn
        excused = told.filtered.get(request_rules.NO_NEGATIVES, 0)
        self.findings.check("requests of the log are records", lost <= excused,
                            f"{lost} are not, such as {self.lost[domain]}")  # fmt: skip
        asked = self.requests[domain]
        self.findings.check(
            _LINES, told.total == asked, f"{what}: {told.total}, the log has {asked}"
        )
        said, merged = self._told(domain).merged or 0, self.merged[domain]
        self.findings.check(_LINES, said == merged, f"{domain} merged: {said}, not {merged}")

    def _check_lines(self, what: str, counts: line_counts.LineCounts, dropped: int) -> None:
        """What the manifest says of the lines is so; lines carried over were counted before."""
        if self.job.extends or what not in self.manifest.lines:
            return
        told = self._told(what)
        for name, said, value in (
            ("total", told.total, counts.total),
            ("used", told.used, counts.events - dropped),
            ("filtered", sum(told.filtered.values()), sum(counts.filtered.values()) + dropped),
            ("rejected", told.rejected, dict(counts.rejected)),
        ):
            self.findings.check(
                _LINES, said == value, f"{what} {name}: {said}, the files have {value}"
            )

    def _told(self, what: str) -> line_counts.Account:
        """What the manifest says of the lines of a domain, of item files or of requests."""
        return facts.from_json(line_counts.Account, self.manifest.lines[what])

    def _check_counts(self, domain: str, described: pa.ChunkedArray) -> None:
        """Vocabularies are of the training period and of items `described`, popularity of it."""
        told = self.told[domain]
        ids = slice(schema.FIRST_ID, None)
        clicks, shown = self.clicks[domain][ids], self.shown[domain][ids]
        fine = (clicks == told[0][ids]) & (shown == told[1][ids])

        def item(place: int) -> str:
            return f"{domain} {self.tokens[domain][place].as_py()}"

        check = self.findings.check_all
        check("popularity comes from the training period", fine, item)
        if not self.job.extends:
            named = pc.is_in(self.tokens[domain], value_set=described.combine_chunks())
            fine = (shown > 0) | named.to_numpy(zero_copy_only=False)
            check("vocabularies come from the training period", fine, item)
        missing = [
            token
            for token, count in self.shown_unknown[domain].items()
            if count >= self.job.min_item_count
        ]
        unknown = pc.invert(pc.is_in(described, value_set=self.tokens[domain]))
        missing += described.filter(unknown)[:3].to_pylist()
        self.findings.check("every item of the training period has an id", not missing,
                            f"{domain}: {missing[:3]}")  # fmt: skip


class ShardOfLogs:
    """A user shard's events against its records."""

    def __init__(self, logs: Logs, events: dict[str, Events]) -> None:
        self._logs, self._events = logs, events
        self._job, self._check = logs.job, logs.findings.check
        self._ids = {domain: of_domain.ids for domain, of_domain in events.items()}
        # records are shuffled: a user comes again and again
        self._user = functools.lru_cache(_USERS_KEPT)(functools.partial(user_events.user, events))
        self._requests = functools.lru_cache(_USERS_KEPT)(self._requests_of)
        self._recorded: dict[str, collections.Counter[tuple[Any, ...]]] = {
            domain: collections.Counter() for domain in schema.DOMAINS
        }
        self._stage1: set[str] = set()

    def _requests_of(self, name: str, domain: str) -> list[Request]:
        """A user's requests of a domain."""
        events, impressions = self._user(name).events[domain], self._job.impressions(domain)
        if self._job.formats[domain].request is not None:
            keys: list[Any] = self._events[domain].requests_of(name)
        else:
            keys = [at if impressions else (at, item) for at, item, _ in events]
        return user_events.requests(events, keys, self._job.request_seconds)

    def request(self, domain: str, split: str, record: Record) -> None:
        """Compares one request's record."""
        self._histories(record, record["request_time"])
        self._candidates(record, domain)
        content = self._content(record, domain)
        self._recorded[domain][record["user_id"], split, record["request_time"], content] += 1

    def stage1(self, record: Record) -> None:
        """Compares one user's record."""
        self._histories(record, record["cutoff_time"])
        self._stage1.add(record["user_id"])

    def _histories(self, record: Record, limit: int) -> None:
        user = self._user(record["user_id"])
        newest = schema.NO_HISTORY_TIME
        for domain, feature in schema.HISTORY_OF_DOMAIN.items():
            before = user.clicks_before(domain, limit)[-self._job.max_history :]
            expected = [self._ids[domain][item] for _, item in before]
            self._check("histories are the log's clicks before the time",
                        record[feature.name] == expected, record["where"])  # fmt: skip
            if self._logs.manifest.click_times:
                times = [moment for moment, _ in before]
                self._check("times of clicks are the log's",
                            record[schema.TIMES_OF_DOMAIN[domain].name] == times,
                            record["where"])  # fmt: skip
            newest = max([newest, *(moment for moment, _ in before)])
        self._check("history time is the newest click's",
                    record["history_time"] == newest, record["where"])  # fmt: skip

    def _candidates(self, record: Record, domain: str) -> None:
        moment, where = record["request_time"], record["where"]
        user, ids = self._user(record["user_id"]), self._ids[domain]
        pairs = candidates_of(record, domain)
        if self._job.impressions(domain):
            shown = {
                (ids[item], int(clicked))
                for request in self._requests(record["user_id"], domain)
                if request.first == moment
                for item, clicked in request.shown.items()
            }
            self._check("candidates were shown to the user", set(pairs) <= shown, where)
            return
        clicks = user.clicks[domain]
        clicked_ever = {ids[item] for _, item in clicks}
        clicked_now = {ids[item] for at, item in clicks if at == moment}
        negatives = {item for item, label in pairs if not label}
        positives = {item for item, label in pairs if label}
        self._check("no negative is a click of the user", not negatives & clicked_ever, where)
        count = self._logs.told[domain][0]
        self._check("negatives were clicked in training",
                    all(n < len(count) and count[n] for n in negatives), where)  # fmt: skip
        self._check("positives are clicks at the request's time",
                    len(positives) == 1 and positives <= clicked_now, where)  # fmt: skip

    def _content(self, record: Record, domain: str) -> tuple[Any, ...]:
        if not self._job.impressions(domain):
            return clicked_ids(record, domain)
        return tuple(sorted(candidates_of(record, domain)))

    def settle(self, records: RecordChecks) -> None:
        """Each user's cutoff from the log, where the split is by the last requests.

        Its record may be filtered, or forged. Of impressions the records alone tell it.
        """
        if self._job.split != "last" or self._job.impressions():
            return
        minimum = self._minimum(0)
        for name in self._events[schema.TARGET].users:
            user = self._user(name)
            clicks = user.clicks[schema.TARGET]
            times = [moment for moment, _ in clicks if user.enough(moment, minimum)]
            if len(times) >= 3:
                fine = records.user_cutoff.get(name, times[-2]) == times[-2]
                self._check("validation is each user's last request but one", fine,
                            f"at {times[-2]}")  # fmt: skip
                records.user_cutoff[name], records.user_end[name] = times[-2:]

    def _minimum(self, least: int) -> dict[str, int]:
        """Clicks of each domain that are needed before a time."""
        return {domain: max(least, self._job.min_history(domain)) for domain in schema.DOMAINS}

    def finish(self, records: RecordChecks) -> None:
        """With all records seen: none is lost or made up, and the shard's counts are summed."""
        self._compare_requests(schema.TARGET, self._expected)
        if self._job.source_requests:
            of_source = functools.partial(self._expected_of_source, records)
            self._compare_requests(schema.SOURCE, of_source)
        minimum = self._minimum(1)
        expected = {
            name
            for name in self._events[schema.SOURCE].users
            if self._user(name).enough(records.cutoff(name), minimum)
        }
        wrong = expected ^ self._stage1
        self._check("stage 1 has the users with both histories", not wrong,
                    f"{len(wrong)} users")  # fmt: skip
        for domain, events in self._events.items():
            limits = np.array([records.cutoff(name) for name in events.users], np.int64)
            before = np.flatnonzero(events.time < limits[events.user])
            ids = events.item_ids[events.item[before]]
            np.add.at(self._logs.shown[domain], ids, 1)
            np.add.at(self._logs.clicks[domain], ids, events.clicked[before])
            unknown = events.item[before[ids == schema.OOV_ID]].tolist()
            self._logs.shown_unknown[domain].update(events.items[code] for code in unknown)

    def _compare_requests(
        self, domain: str, expected: Callable[[str, list[Request]], Iterator[Expected]]
    ) -> None:
        """Each request of the log that no rule filters is there, once and in its split.

        Args:
          expected: a user and its requests → those that are to be records.
        """
        recorded, lost = self._recorded[domain], self._logs.lost[domain]
        for name in self._events[domain].users:
            asked = self._requests(name, domain)
            self._logs.requests[domain] += len(asked)
            self._logs.merged[domain] += sum(one.lines - len(one.shown) for one in asked)
            for request in expected(name, asked):
                key = (name, *request)
                if recorded[key] > 0:
                    recorded[key] -= 1
                    continue
                del recorded[key]
                self._logs.lost_requests[domain] += 1
                if len(lost) < 3:
                    lost.append(request)
        made_up = +recorded
        self._check("records are requests of the log, each once", not made_up,
                    lambda: f"{made_up.total()}, such as {min(made_up)[1:3]}")  # fmt: skip

    def _expected(self, name: str, asked: list[Request]) -> Iterator[Expected]:
        """The target's requests of a user that are to be records."""
        user, minimum = self._user(name), self._minimum(0)
        left = [
            request
            for request in asked
            if user.enough(request.first, minimum)
            and len(request.shown) <= self._job.max_candidates
        ]
        for place, request in enumerate(left):
            split = self._split(request, len(left) - place, left)
            content = self._expected_content(request, schema.TARGET)
            if split and content:
                yield split, request.first, content

    def _expected_of_source(
        self, records: RecordChecks, name: str, asked: list[Request]
    ) -> Iterator[Expected]:
        """The source's requests of a user that are to be records: no history is too short."""
        for request in asked:
            split = records.source_split(name, request.first)
            crosses = split != records.source_split(name, request.last)
            content = self._expected_content(request, schema.SOURCE)
            fits = len(request.shown) <= self._job.max_candidates
            if split and not crosses and fits and content:
                yield split, request.first, content

    def _expected_content(self, request: Request, domain: str) -> tuple[Any, ...] | None:
        """What tells a request's record, None where the click has no id to be told by."""
        known = [(self._ids[domain][item], int(clicked)) for item, clicked in request.shown.items()]
        if self._job.impressions(domain):
            return tuple(sorted(known))
        if not (self._logs.told[domain][0][known[0][0]] or self._job.keep_unknown_clicks):
            return None
        return (known[0][0],)

    def _split(self, request: Request, from_end: int, left: list[Request]) -> str:
        """Of a request, the `from_end`-th from the last; "" where it has lines past a cutoff."""
        if self._job.split == "time":
            until = [self._logs.manifest.split[n] for n in ("train_until", "validation_until")]
            first, last = (
                sum(at >= bound for bound in until) for at in (request.first, request.last)
            )
            return str(schema.STAGE2_SPLITS[first]) if first == last else ""
        if len(left) < 3:
            return str(schema.TRAIN)
        if from_end <= 2:
            return str(schema.TEST if from_end == 1 else schema.VALIDATION)
        return str(schema.TRAIN) if request.last < left[-2].first else ""
