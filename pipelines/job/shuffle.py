"""Events of blocks to the shard of their user: through files, or through Beam's own shuffle.

With `files` parsing workers write each block's events by shard to an Arrow file, and only (file,
batch) goes through GroupByKey. That is for one machine, whose local runner holds in memory
whatever goes through GroupByKey. On a cluster it would be blocks times shards small reads from
an object store; there, with `beam`, the events themselves go, as Arrow messages, and no file is
written or read on the way.

Both give a shard the same events. They come in no order, and need none (records/shards.py).
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

from pipelines.job.workspace import Work
from pipelines.logs import files
from pipelines.options import Job
from pipelines.records import shards, vocabulary
from sitn_tf import beam_runner

FILES, BEAM = "files", "beam"
WINDOW_BYTES = 64 << 20
"""Of events, as Arrow holds them, that a worker's thread divides by shard at once."""
MOST_BUCKETS = 64

_ON_ONE_MACHINE = (
    beam_runner.LOCAL, "BundleBasedDirectRunner", "InteractiveRunner", "PrismRunner",
    "SwitchingDirectRunner",
)  # fmt: skip


class BlockEvents(NamedTuple):
    """The events of a domain in one block; `order` is (file, position) of the block."""

    domain: str
    order: tuple[int, int]
    events: pa.Table


Moved: TypeAlias = shards.Part | tuple[str, bytes]
"""What goes through GroupByKey: a batch of a file, or (domain, Arrow message)."""


def on_one_machine(runner: str) -> bool:
    """Whether it is one of Beam's local runners, which hold in memory what they shuffle."""
    return runner in _ON_ONE_MACHINE


def settled(asked: str, runner: str) -> str:
    """FILES or BEAM, whatever was asked for, on a runner."""
    if asked != "auto":
        return asked
    return FILES if on_one_machine(runner) else BEAM


class ByShard(beam.PTransform):
    """BlockEvents to (shard, its Moved), with what a data set that is extended brings.

    That comes as files either way: it is sorted by shard already, one file a shard and domain.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def expand(self, events: Any) -> Any:
        """The way that the job says, then GroupByKey."""
        through: Any = {FILES: ThroughFiles, BEAM: ThroughBeam}[self._work.job.shuffle]
        carried = events.pipeline | "CarriedEvents" >> beam.Create(
            self._work.carried.events, reshuffle=False
        )
        return (
            (events | "Divide" >> through(self._work), carried)
            | "AllEvents" >> beam.Flatten()
            | "ByShard" >> beam.GroupByKey()
        )


class ThroughFiles(beam.PTransform):
    """BlockEvents to (shard, Part): a file for each block."""

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def expand(self, events: Any) -> Any:
        """One step."""
        return events | "Spill" >> beam.FlatMap(spill, self._work)


def spill(block: BlockEvents, work: Work) -> list[tuple[int, shards.Part]]:
    """A block's events to a file of this attempt; (shard, part) of each shard with events."""
    domain, order, events = block
    path = work.place(f"parsed-{domain}-{order[0]}-{order[1]}")
    return shards.spill(events, work.job.shards, path, domain, order)


class ThroughBeam(beam.PTransform):
    """BlockEvents to (shard, (domain, Arrow message)).

    A message has at most shards.MESSAGE_BYTES, or one event. So that they are not tiny, a bundle's
    blocks are divided together, WINDOW_BYTES of them at once: a bundle of B bytes gives each shard
    and domain at most 2 + B / WINDOW_BYTES + B / (MESSAGE_BYTES / 2) messages, and a thread holds
    at most three times WINDOW_BYTES and a block. Nothing is written: a bundle that fails and is run
    again sends its messages once.
    """

    def __init__(self, work: Work) -> None:
        super().__init__()
        self._work = work

    def expand(self, events: Any) -> Any:
        """One step."""
        return events | "Send" >> beam.ParDo(_Send(self._work.job.shards))


class _Send(beam.DoFn):
    def __init__(self, shards: int) -> None:
        self._shards = shards

    def start_bundle(self) -> None:
        self._held: dict[str, list[pa.Table]] = {}
        self._bytes = 0

    def process(self, block: BlockEvents) -> Iterator[tuple[int, Moved]]:
        self._held.setdefault(block.domain, []).append(block.events)
        self._bytes += block.events.nbytes
        if self._bytes >= WINDOW_BYTES:
            yield from self._sent()

    def finish_bundle(self) -> Iterator[Any]:
        yield from map(GlobalWindows.windowed_value, self._sent())

    def _sent(self) -> Iterator[tuple[int, Moved]]:
        held = self._held
        self.start_bundle()
        for domain in sorted(held):
            for shard, batch in shards.by_shard(pa.concat_tables(held.pop(domain)), self._shards):
                yield from ((shard, (domain, m)) for m in shards.messages(batch))


Counts: TypeAlias = str | bytes
"""Item counts of one shard: a file or an Arrow message."""


def divide_counts(
    counted: pa.Table, domain: str, shard: int, work: Work
) -> Iterator[tuple[tuple[str, int], Counts]]:
    """A shard's item counts, ((domain, bucket), Counts), the same way as the events.

    Through files all are one bucket. Through Beam there are up to MOST_BUCKETS, by item, so that no
    worker has to merge what all shards say of all items.
    """
    if work.job.shuffle == FILES:
        path = work.place(f"counts-{domain}-{shard}")
        files.write_table(path, counted)
        yield (domain, 0), path
        return
    buckets = min(work.job.shards, MOST_BUCKETS)
    none = pa.RecordBatch.from_pylist([], vocabulary.COUNTS)  # a domain has counts, if of no item
    divided = shards.by_shard(counted, buckets, vocabulary.ITEM) if len(counted) else [(0, none)]
    for bucket, batch in divided:
        yield from (((domain, bucket), message) for message in shards.messages(batch))


def read_counts(counts: Counts) -> pa.Table:
    """What `divide_counts` made Counts of."""
    if isinstance(counts, bytes):
        return shards.of_message(counts, vocabulary.COUNTS)
    return files.read_table_batches(counts)


def batches(moved: Iterable[Moved], job: Job) -> Iterator[tuple[str, pa.Table]]:
    """(domain, some events) of a shard, one batch in memory at a time."""
    parts = []
    for one in moved:
        if isinstance(one, shards.Part):
            parts.append(one)
        else:
            domain, message = one
            yield domain, shards.of_message(message, job.formats[domain].schema)
    yield from shards.in_files(parts)
