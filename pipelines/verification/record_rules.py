"""What the records of one user shard show by themselves."""

import pathlib
from collections.abc import Iterator
from typing import Any

import google_crc32c

from pipelines.options import Job
from pipelines.verification.findings import Findings
from sitn_tf import schema

Record = dict[str, Any]


def read_tfrecords(path: pathlib.Path) -> Iterator[bytes]:
    """Records of a file, both checksums checked.

    Raises:
      ValueError: the file is cut off or a checksum is wrong.
    """

    def masked(data: bytes) -> int:
        crc = google_crc32c.value(data)
        return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    with open(path, "rb") as file:
        place = 0
        while head := file.read(12):
            length = int.from_bytes(head[:8], "little")
            if len(head) < 12 or masked(head[:8]) != int.from_bytes(head[8:], "little"):
                raise ValueError(f"bad length at byte {place}")
            body = file.read(length + 4)
            if len(body) < length + 4:
                raise ValueError(f"cut off at byte {place}")
            if masked(body[:length]) != int.from_bytes(body[length:], "little"):
                raise ValueError(f"bad checksum at byte {place}")
            yield body[:length]
            place += 16 + length


def parse_record(raw: bytes, stage: str, manifest: schema.Manifest) -> Record:
    """A record's values by feature: lists of ragged features, else the single value.

    Args:
      manifest: of its data set.

    Raises:
      ValueError: it is no Example, or a feature without which it is no record is missing.
    """
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    lists = {"bytes": "bytes_list", "int64": "int64_list", "float32": "float_list"}
    record: Record = {}
    try:
        features = tf.train.Example.FromString(raw).features.feature
        for feature in manifest.features_of(stage):
            values = list(getattr(features[feature.name], lists[feature.dtype]).value)
            record[feature.name] = values if feature.ragged else values[0]
        record[schema.USER_ID.name] = record[schema.USER_ID.name].decode()
    except (DecodeError, IndexError) as error:
        raise ValueError(f"a record is no Example of {stage}") from error
    return record


def candidates_of(record: Record, domain: str) -> list[tuple[int, int]]:
    """Candidates of a request of a domain, each with its label."""
    ids = record[schema.CANDIDATES_OF_DOMAIN[domain].name]
    return list(zip(ids, record["labels"], strict=False))


def clicked_ids(record: Record, domain: str) -> tuple[int, ...]:
    return tuple(sorted(item for item, label in candidates_of(record, domain) if label))


class RecordChecks:
    """The records of one user shard: stage 2 first, then `settle`, then all others.

    What is remembered is of this shard's users alone.
    """

    def __init__(self, manifest: schema.Manifest, job: Job, findings: Findings) -> None:
        self._manifest, self._job, self._check = manifest, job, findings.check
        self._requests: set[tuple[Any, ...]] = set()
        self._owners: set[str] = set()
        self._times: dict[str, dict[str, list[int]]] = {}
        self.user_cutoff: dict[str, int] = {}
        self.user_end: dict[str, int] = {}

    def cutoff(self, user: str) -> int:
        """The user's training cutoff: before it is settled, of no user."""
        if self._manifest.split["kind"] == "time":
            return int(self._manifest.split["train_until"])
        return self.user_cutoff.get(user, 1 << 62)

    def source_split(self, user: str, moment: int) -> str:
        """The split of a user's source request at a time, "" where it is the test's."""
        if self._manifest.split["kind"] == "time":
            end = int(self._manifest.split["validation_until"])
        else:
            end = self.user_end.get(user, 1 << 62)
        if moment >= end:
            return ""
        return schema.TRAIN if moment < self.cutoff(user) else schema.VALIDATION

    def request(self, domain: str, split: str, record: Record) -> None:
        """Checks one request."""
        self._any_record(record, record["request_time"])
        self._candidates(record, domain)
        self._repeated(record, domain)
        if domain == schema.SOURCE:
            user = record["user_id"]
            expected = self.source_split(user, record["request_time"])
            # the request that is the user's cutoff may be filtered: only the log tells it then
            untold = self._manifest.split["kind"] == "last" and user not in self.user_cutoff
            fine = split == expected or (untold and expected != "")
            self._check("source requests are split where the target's are", fine, record["where"])
        elif self._manifest.split["kind"] == "time":
            low, high = self._bounds(split)
            fine = low <= record["request_time"] < high
            self._check("splits don't cross in time", fine, record["where"])
        else:
            of_user = self._times.setdefault(record["user_id"], {})
            of_user.setdefault(split, []).append(record["request_time"])

    def stage1(self, record: Record) -> None:
        """Checks one user's record."""
        user, where = record["user_id"], record["where"]
        lengths = self._any_record(record, record["cutoff_time"])
        self._check("stage 1 knows both histories", all(lengths), where)
        self._check("stage 1 has a user once", user not in self._owners, where)
        self._owners.add(user)
        fine = record["cutoff_time"] <= self.cutoff(user)
        self._check("stage 1 saw nothing past the training cutoff", fine, where)

    def _any_record(self, record: Record, limit: int) -> list[int]:
        """What holds in both stages; the lengths of the histories."""
        where = record["where"]
        self._check("histories precede their request or cutoff", record["history_time"] < limit,
                    lambda: f"{where}: {record['history_time']} is not before {limit}")  # fmt: skip
        lengths = []
        for domain, feature in schema.HISTORY_OF_DOMAIN.items():
            ids = record[feature.name]
            lengths.append(len(ids))
            self._ids(domain, ids, where)
            self._check("histories are no longer than the manifest says",
                        len(ids) <= self._manifest.max_history, where)  # fmt: skip
        if self._manifest.click_times:
            self._click_times(record, limit)
        timeless = record["history_time"] == schema.NO_HISTORY_TIME
        self._check("only empty histories have no time", timeless == (not any(lengths)), where)
        return lengths

    def _click_times(self, record: Record, limit: int) -> None:
        """Each click has its time, oldest first, and the newest is the histories'."""
        where, newest = record["where"], schema.NO_HISTORY_TIME
        for domain, feature in schema.TIMES_OF_DOMAIN.items():
            times = record[feature.name]
            same = len(times) == len(record[schema.HISTORY_OF_DOMAIN[domain].name])
            self._check("each click of a history has a time", same, where)
            self._check("times of clicks are in order", times == sorted(times), where)
            self._check("times of clicks precede their request or cutoff",
                        all(time < limit for time in times), where)  # fmt: skip
            newest = max([newest, *times])
        self._check("history time is the newest of the clicks' times",
                    record["history_time"] == newest, where)  # fmt: skip

    def _ids(self, domain: str, ids: list[int], where: str) -> None:
        size = self._manifest.vocabulary_size(domain)
        fine = all(schema.PAD_ID < i < size for i in ids)
        self._check("ids are in their vocabulary", fine, where)

    def _candidates(self, record: Record, domain: str) -> None:
        candidates = record[schema.CANDIDATES_OF_DOMAIN[domain].name]
        labels, where = record["labels"], record["where"]
        self._ids(domain, candidates, where)
        fine = bool(candidates) and len(labels) == len(candidates) and set(labels) <= {0, 1}
        self._check("each candidate has a label", fine, where)
        known = [c for c in candidates if c != schema.OOV_ID]
        self._check("no candidate is there twice", len(known) == len(set(known)), where)
        scores = len(record["logged_scores"])
        self._check("scores are for all candidates or none", scores in (0, len(candidates)), where)

    def _repeated(self, record: Record, domain: str) -> None:
        """No request is there twice, as far as the records alone can tell.

        Requests that the log names may be alike, and so may clicks of unknown items.
        """
        if self._job.formats[domain].request is not None:
            return
        key: tuple[Any, ...] = (domain, record["user_id"], record["request_time"])
        if not self._job.impressions(domain):
            clicked = clicked_ids(record, domain)
            if schema.OOV_ID in clicked:
                return
            key = (*key, *clicked)
        self._check("no request is there twice", key not in self._requests, record["where"])
        self._requests.add(key)

    def _bounds(self, split: str) -> tuple[int, int]:
        until = [self._manifest.split[name] for name in ("train_until", "validation_until")]
        edges = [-1, *until, 1 << 62]
        place = schema.STAGE2_SPLITS.index(split)
        return edges[place], edges[place + 1]

    def settle(self) -> None:
        """With all requests seen: splits by last requests, and the cutoffs that they tell."""
        for user, times in self._times.items():
            train, validation, test = (times.get(n, []) for n in schema.STAGE2_SPLITS)
            fine = len(validation) <= 1 and len(test) <= 1
            self._check("a user validates and tests once at most", fine, user)
            middle = validation or test
            fine = max(train, default=-1) < min(middle, default=1 << 62)
            fine &= max(validation, default=-1) <= min(test, default=1 << 62)
            self._check("splits don't cross in time", fine, user)
            if validation:
                self.user_cutoff[user] = validation[0]
            if test:
                self.user_end[user] = test[0]
