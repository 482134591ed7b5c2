"""Proves for a data set that it is whole and that nothing leaked into it.

    python -m pipelines.verify --data_dir=data

What a data set says of itself is checked from its files alone; that it agrees with the logs
is checked by reading the logs that its manifest names again (--nologs leaves that out).
The user shards that share a file of records are in memory at a time, so --shards of the build
bounds this command too; the logs' events pass through files in the folder for temporary files
(TMPDIR).
The loops are plain on purpose: they share with the vectorised job the reading of lines and
the sorting of events by user shard, and nothing of what makes records of them.
"""

import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from absl import flags
from google.protobuf import json_format

from pipelines import facts, manifest_entries
from pipelines.logs import user_hashes
from pipelines.logs.line_counts import Account
from pipelines.options import Job
from pipelines.records import shards, vocabulary
from pipelines.verification import log_agreement
from pipelines.verification.findings import Findings
from pipelines.verification.record_rules import Record, RecordChecks, parse_record, read_tfrecords
from sitn_tf import cli, quiet, schema, whole_files
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", "", "the data set directory", flag_values=FLAGS)
flags.DEFINE_bool("logs", True, "also read the logs again and compare", flag_values=FLAGS)
flags.DEFINE_string(
    "hash_user_ids", "", "the key's file, where the build had one", flag_values=FLAGS
)
_DAMAGE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, json_format.ParseError,
)  # fmt: skip
"""What reading a file that is missing or damaged raises."""
_ROUNDED = 1e-2
"""How far from 1 the length of a vector of float16 numbers may be."""
_UNREAD = ", by its files alone: the logs were not read"
_COMPARABLE = "records can be compared with the logs"
T = TypeVar("T")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


class Verifier:
    """One data set under examination; `user_key` is what its user ids were hashed with."""

    def __init__(self, data_dir: str, user_key: bytes | None = None) -> None:
        self._user_key = user_key
        self.root = pathlib.Path(data_dir)
        self.manifest = schema.read_manifest(data_dir)
        self.findings = Findings()
        self.check = self.findings.check
        try:
            self.job = facts.from_json(Job, self.manifest.options)
        except _DAMAGE as error:
            raise InputError(
                f"the options in {self.root / schema.MANIFEST_FILE} are damaged "
                f"({_one_line(error)}): build the data set again"
            ) from error

    def verify(self, *, with_logs: bool) -> Findings:
        """Makes all checks.

        Raises:
          InputError: the logs can't be compared without the key, or there was none or another.
        """
        if with_logs and self.job.hashed_users != (self._user_key is not None):
            hashed = self.job.hashed_users
            raise InputError(
                f"the user ids of {self.root} are {'hashed' if hashed else 'not hashed'}",
                "give hash_user_ids=KEYFILE, or logs=False" if hashed else "leave out the key",
            )
        if with_logs and self._user_key is not None and self.job.hashed_with not in (
            "", user_hashes.fingerprint(self._user_key)
        ):  # fmt: skip
            raise InputError(
                f"hash_user_ids is not the key that {self.root} was made with",
                "give that key, or logs=False",
            )
        self._attempt("manifest can be read", self._manifest)
        self._attempt(f"{schema.CHECKSUMS_FILE} can be read", self._files)
        self._attempt("kept events can be read", self._kept)
        self._attempt("vocabularies and item tables can be read", self._vocabularies)
        self._attempt("item vectors can be read", self._vectors)
        self._attempt("features.json and dataset_info.json can be read", self._metadata)
        self._attempt("records can be read", lambda: self._all_records(with_logs=with_logs))
        return self.findings

    def _attempt(self, what: str, step: Callable[[], T]) -> T | None:
        """Makes the checks of a step; that a file is missing or damaged is a finding too."""
        try:
            return step()
        except InputError:
            raise
        except _DAMAGE as error:
            self.check(what, False, _one_line(error))
            return None

    def _all_records(self, *, with_logs: bool) -> None:
        """Checks all records, a group of user shards at a time."""
        layout = self._layout()
        if self.findings.wrong.get("shard is whole"):
            return
        with tempfile.TemporaryDirectory(prefix="verify-") as folder:
            logs = None
            if with_logs:
                logs = self._compared(lambda: self._logs(pathlib.Path(folder)))
            for number in range(self.job.groups):
                self._shard(number, layout.get(number, {}), logs)
            if logs is not None:
                self._compared(logs.finish)

    def _compared(self, step: Callable[[], T]) -> T | None:
        """Makes the checks of a step that reads the logs again."""
        try:
            return self._attempt(_COMPARABLE, step)
        except InputError as error:
            raise InputError(
                f"what {self.root / schema.MANIFEST_FILE} names can't be read again: {error}",
                "give logs=False to verify the data set without",
            ) from error

    def _logs(self, folder: pathlib.Path) -> log_agreement.Logs:
        return log_agreement.Logs(
            self.root, self.manifest, self.job, self.findings, folder, self._user_key
        )

    def _layout(self) -> dict[int, dict[tuple[str, str], list[str]]]:
        """By group of user shards, stage and split, the files: of their first record's group."""
        layout: dict[int, dict[tuple[str, str], list[str]]] = {}
        for name, count in sorted(self.manifest.shards.items()):
            stage, split = name.split("/")[0], name.split("-")[1].split(".")[0]
            first, records = None, 0
            try:
                for raw in read_tfrecords(self.root / name):
                    first, records = first or raw, records + 1
                owner = 0 if first is None else self._owner(self._parsed(first, stage))
            except _DAMAGE as error:
                self.check("shard is whole", False, f"{name}: {error}")
                continue
            self.check("shard is whole", records == count, f"{name}: {records} of {count}")
            layout.setdefault(owner, {}).setdefault((stage, split), []).append(name)
        return layout

    def _parsed(self, raw: bytes, stage: str) -> Record:
        return parse_record(raw, stage, self.manifest)

    def _owner(self, record: Record) -> int:
        return int(self._groups([record[schema.USER_ID.name]])[0])

    def _groups(self, users: list[str]) -> np.ndarray:
        """Of users, the group of user shards."""
        shard = shards.shard_of_users(pa.array(users, pa.string()), self.job.shards)
        return shards.group_of(shard, self.job.shards, self.job.groups)

    def _shard(
        self,
        number: int,
        names: dict[tuple[str, str], list[str]],
        logs: log_agreement.Logs | None,
    ) -> None:
        """Checks the records of a group of user shards, stage 2 first: it tells users' cutoffs."""
        alone = RecordChecks(self.manifest, self.job, self.findings)
        against = None if logs is None else logs.shard(number)
        checks: list[RecordChecks | log_agreement.ShardOfLogs] = [alone]
        checks += [] if against is None else [against]
        for split, record in self._records(number, schema.STAGE2, names):
            for check in checks:
                check.request(schema.TARGET, split, record)
        alone.settle()
        if against is not None:
            against.settle(alone)
        for split, record in self._records(number, schema.SOURCE_REQUESTS, names):
            for check in checks:
                check.request(schema.SOURCE, split, record)
        for _, record in self._records(number, schema.STAGE1, names):
            for check in checks:
                check.stage1(record)
        if against is not None:
            against.finish(alone)

    def _records(
        self, number: int, stage: str, names: dict[tuple[str, str], list[str]]
    ) -> Iterator[tuple[str, Record]]:
        """Split and record of a stage's files, with where it is; all are to be of one group."""
        files = [(s, name) for s in schema.SPLITS[stage] for name in names.get((stage, s), [])]
        for split, name in files:
            users = []
            for place, raw in enumerate(read_tfrecords(self.root / name)):
                try:
                    record = self._parsed(raw, stage)
                except ValueError as error:
                    self.check("shard is whole", False, f"{name} record {place}: {error}")
                    continue
                record["where"] = f"{name} record {place}"
                users.append(record[schema.USER_ID.name])
                yield split, record
            fine = self._groups(users) == number
            self.findings.check_all("a user's records are in one shard", fine, _place_in(name))

    def _manifest(self) -> None:
        """What the manifest says in two places is the same in both."""
        manifest, job = self.manifest, self.job
        accounts = {what: facts.from_json(Account, told) for what, told in manifest.lines.items()}
        for what, ended in accounts.items():
            self.check("every line is accounted for", ended.placed == ended.total,
                       f"{what}: {ended.placed} of {ended.total}")  # fmt: skip
        expected = {
            "max_history": (manifest.max_history, job.max_history),
            "click_times": (manifest.click_times, job.click_times),
            "negatives": (
                manifest.negatives, manifest_entries.negatives(job, manifest.vocabularies)
            ),
            "split": (manifest.split["kind"], job.split),
            "stages": (sorted(manifest.records), sorted(manifest_entries.stages(job))),
        }  # fmt: skip
        for what, domain in manifest_entries.REQUESTS.items():
            records = manifest.records.get(schema.STAGE_OF_REQUESTS[domain])
            if records is not None:
                expected[f"used {what}"] = (accounts[what].used, sum(records.values()))
        if job.train_until is not None:
            cutoffs = [manifest.split[name] for name in ("train_until", "validation_until")]
            expected["cutoffs"] = (cutoffs, [job.train_until, job.validation_until])
        for name, (said, told) in expected.items():
            self.check("manifest agrees with its options", said == told,
                       f"{name}: {said} is not {told}")  # fmt: skip

    def _files(self) -> None:
        checksums = json.loads((self.root / schema.CHECKSUMS_FILE).read_text())
        text = json.dumps(checksums, sort_keys=True).encode()
        same = manifest_entries.dataset_hash(checksums) == self.manifest.dataset_hash
        self.check("data set hash", same,
                   lambda: f"of {len(text)} bytes of checksums")  # fmt: skip
        for name, expected in checksums.items():
            path = self.root / name
            actual = whole_files.sha256(path) if path.is_file() else "missing"
            self.check("file has its checksum", actual == expected, f"{name}: {actual[:12]}")
        on_disk = {
            str(path.relative_to(self.root))
            for stage in schema.STAGE_FEATURES
            for path in self.root.glob(f"{stage}/*.tfrecord-*")
        }
        self.check("shards are those of the manifest", on_disk == set(self.manifest.shards),
                   lambda: str(sorted(on_disk ^ set(self.manifest.shards))))  # fmt: skip

    def _kept(self) -> None:
        """What is kept to extend the data set is as it was written, where anything is."""
        folder = self.root / manifest_entries.KEPT
        if not (self.job.keep_events or folder.is_dir()):
            return
        kept = json.loads((folder / manifest_entries.KEPT_PARTS).read_text())
        whole = kept.get("whole", "")
        self.check("kept events have their checksums",
                   whole in ("", manifest_entries.kept_checksum(kept)),
                   manifest_entries.KEPT_PARTS)  # fmt: skip
        for name, expected in kept.get("sha256", {}).items():
            path = folder / name
            actual = whole_files.sha256(path) if path.is_file() else "missing"
            self.check("kept events have their checksums", actual == expected,
                       f"{name}: {actual[:12]}")  # fmt: skip

    def _vocabularies(self) -> None:
        for domain in schema.DOMAINS:
            path = self.root / schema.item_table_path(domain)
            for name in (schema.ITEM, schema.TITLE_WORDS, *schema.CATEGORICAL_ITEM_FEATURES):
                tokens = vocabulary.read_text(str(self.root / schema.vocabulary_path(domain, name)))
                column = pq.read_table(path, columns=[name])[name]
                label = schema.vocabulary_name(domain, name)
                size = self.manifest.vocabularies[label]["size"]
                self.check("vocabulary has its size", size == len(tokens) + 2, label)
                once = pc.count_distinct(tokens).as_py() == len(tokens)
                self.check("vocabulary names each token once", once, label)
                if name == schema.ITEM:
                    rows = column.slice(schema.FIRST_ID)
                    same = rows.equals(pa.chunked_array([tokens]))
                    self.check("item table has the vocabulary's rows", same, label)
                    continue
                ids = pc.list_flatten(column) if name == schema.TITLE_WORDS else column
                highest = pc.max(ids).as_py() or 0
                self.check("item features are in their vocabulary", highest < size or
                           highest < schema.FIRST_ID, f"{label}: {highest}")  # fmt: skip

    def _vectors(self) -> None:
        """Item tables have vectors of the width where the manifest says so, of length 1 or 0."""
        told = self.manifest.vectors
        for domain in schema.DOMAINS:
            path = self.root / schema.item_table_path(domain)
            count = told.get("items", {}).get(domain, 0)
            there = schema.VECTOR in pq.read_schema(path).names
            self.check("item vectors are where the manifest has them", there == bool(count), domain)
            if not there:
                continue
            column = pq.read_table(path, columns=[schema.VECTOR])[schema.VECTOR]
            numbers = pc.list_flatten(column).to_numpy().astype(np.float32)
            vectors = numbers.reshape(-1, column.type.list_size)
            self.check("item vectors have their width", vectors.shape[1] == told.get("dims"),
                       f"{domain}: {vectors.shape[1]}")  # fmt: skip
            length = np.linalg.norm(vectors, axis=1)
            fine = (length == 0) | (np.abs(length - 1) < _ROUNDED)
            self.findings.check_all("item vectors are of length 1 or 0", fine,
                                    _item_of(domain))  # fmt: skip
            known = np.count_nonzero(length)
            reserved = np.count_nonzero(length[: schema.FIRST_ID])
            self.check("as many items have vectors as the manifest says",
                       known <= count and not reserved,
                       f"{domain}: {known} of {count}, reserved {reserved}")  # fmt: skip

    def _metadata(self) -> None:
        import tensorflow_datasets as tfds

        for stage, counts in self.manifest.records.items():
            splits = tfds.builder_from_directory(self.root / stage).info.splits
            for split, count in counts.items():
                names = sorted(n for n in self.manifest.shards if f"{stage}-{split}." in n)
                lengths = [self.manifest.shards[name] for name in names]
                known = splits[split].shard_lengths if split in splits else []
                self.check("tfds knows the records", known == lengths and sum(known) == count,
                           f"{stage}/{split}: {known}")  # fmt: skip


def _place_in(name: str) -> Callable[[int], str]:
    return lambda place: f"{name} record {place}"


def _item_of(domain: str) -> Callable[[int], str]:
    return lambda row: f"{domain} item {row}"


def main(_: list[str]) -> int:
    data_dir = cli.require(FLAGS, "data_dir")
    quiet.import_tensorflow()
    key = user_hashes.read_key(FLAGS.hash_user_ids) if FLAGS.hash_user_ids else None
    findings = Verifier(data_dir, key).verify(with_logs=FLAGS.logs)
    print(findings.table())
    if findings.wrong:
        print(f"checks that are WRONG: {len(findings.wrong)}; don't train on it, build it again")
        return 1
    print(f"the data set is whole and nothing leaked into it{'' if FLAGS.logs else _UNREAD}")
    return 0


if __name__ == "__main__":
    cli.run(main, FLAGS)
