"""What a job's steps tell the assembly of the data set: facts of lines, tables and shards."""

import dataclasses
from collections import Counter

from pipelines.logs.line_counts import LineCounts, TimeHistogram
from pipelines.records.request_rules import Cutoffs
from pipelines.records.vocabulary import VocabularyEntry
from sitn_tf import schema


@dataclasses.dataclass(frozen=True)
class LineFacts:
    """The lines of a domain's log, `<domain>`, or item files, `<domain>_items`."""

    what: str
    counts: LineCounts = dataclasses.field(default_factory=LineCounts)


@dataclasses.dataclass(frozen=True)
class CutoffFacts:
    """The cutoffs and the times of all target clicks that they come from."""

    cutoffs: Cutoffs
    times: TimeHistogram


@dataclasses.dataclass(frozen=True)
class PlacedFile:
    """A finished file, its place in the data set directory and its checksum."""

    path: str
    place: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class TableFacts:
    """A domain's vocabularies and item table.

    Attributes:
      vocabularies: by "<domain>.<feature>".
      files: of the table and the vocabularies.
      raw_items: of all items, where the job keeps events.
      popularity: curve of the clicks of items.
    """

    domain: str
    vocabularies: dict[str, VocabularyEntry]
    files: tuple[PlacedFile, ...]
    raw_items: PlacedFile | None
    popularity: list[list[float]]


@dataclasses.dataclass(frozen=True)
class VectorFacts:
    """The vectors of items, where there are any.

    Attributes:
      basis: the file of what makes them (records/item_vectors.py).
      width, dims: before and after.
      items: how many have one, by domain.
      titles: titles' vectors, where a model made these and the job keeps events.
    """

    basis: PlacedFile
    width: int
    dims: int
    items: dict[str, int]
    titles: PlacedFile | None = None


@dataclasses.dataclass(frozen=True)
class WrittenFile:
    """A TFRecord file of neighbouring shards, of one stage and split."""

    stage: str
    split: str
    path: str
    records: int
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class SortedShard:
    """A shard after its first pass.

    Attributes:
      shard: its number.
      events, sha256, rows: by domain, files of sorted events, their checksums and how many they
        hold.
      filtered: by domain, events filtered by rule.
      shared_users: users with clicks in both domains.
      record_bytes: expected of its training records of stage 2.
    """

    shard: int
    events: dict[str, str]
    sha256: dict[str, str]
    rows: dict[str, int]
    filtered: dict[str, dict[str, int]]
    shared_users: int
    record_bytes: int


@dataclasses.dataclass(frozen=True)
class GroupFacts:
    """Neighbouring shards after their second pass: one fact, however many they are.

    Attributes:
      group, groups: its number, of how many.
      kept: the shards, where the job keeps their events.
      filtered: by domain, events filtered by rule.
      written: the records.
      statistics: the file of their statistics: those of many are large.
      requests: by domain, how many; requests_filtered: by domain and rule.
      merged: by domain, lines of requests' candidates that have another line.
    """

    group: int
    groups: int
    kept: tuple[SortedShard, ...]
    filtered: dict[str, Counter[str]]
    written: tuple[WrittenFile, ...]
    statistics: str
    requests: Counter[str]
    requests_filtered: dict[str, Counter[str]]
    merged: Counter[str]


Fact = LineFacts | CutoffFacts | VectorFacts | TableFacts | GroupFacts


@dataclasses.dataclass(frozen=True)
class Summary:
    """All facts of a job: logs before item files, domains and groups of shards in order."""

    lines: tuple[LineFacts, ...]
    cutoffs: CutoffFacts
    tables: tuple[TableFacts, ...]
    groups: tuple[GroupFacts, ...]
    vectors: VectorFacts | None = None

    def written(self, stage: str) -> list[WrittenFile]:
        """The record files of a stage, in order of their shards."""
        return [file for group in self.groups for file in group.written if file.stage == stage]

    @classmethod
    def of(cls, told: list[Fact]) -> "Summary":
        """Of facts in any order."""
        lines = (fact for fact in told if isinstance(fact, LineFacts))
        [cutoffs] = (fact for fact in told if isinstance(fact, CutoffFacts))
        tables = (fact for fact in told if isinstance(fact, TableFacts))
        groups = (fact for fact in told if isinstance(fact, GroupFacts))
        return cls(
            tuple(sorted(lines, key=lambda fact: (fact.what not in schema.DOMAINS, fact.what))),
            cutoffs,
            tuple(sorted(tables, key=lambda fact: fact.domain)),
            tuple(sorted(groups, key=lambda fact: fact.group)),
            next((fact for fact in told if isinstance(fact, VectorFacts)), None),
        )
