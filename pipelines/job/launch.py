"""What a job on a cluster is about to do, said before it starts, and refused if it can't fit.

Numbers are guesses of what is known without reading a line; they are made to be too high rather
than too low.
"""

import sys
from collections.abc import Sequence

from pipelines.job import shuffle
from pipelines.job.inputs import Input, describe
from pipelines.job.workspace import Carried
from pipelines.logs import files
from pipelines.manifest_entries import LOG
from pipelines.options import Job
from sitn_tf.errors import InputError

_MB = 1 << 20
_LINE_BYTES = {"jsonl": 80, "csv": 30, "parquet": 12}
_LINE_BYTES_GZIPPED = 16
_LIBRARIES = 200 * _MB
_OF_BLOCK = 6
"""Bytes that parsing holds for a byte of a block."""
_OF_EVENT = 190
"""Bytes that a shard's two passes hold for an event: the peak by events a shard, measured."""
_OF_ITEM = 60
_EVENTS_OF_SHARD = 60_000


def check_paths(job: Job, runner: str) -> None:
    """Refuses files of this machine where workers are sure to be on others.

    Raises:
      InputError: a path of such a file, under its option.
    """
    if runner != "DataflowRunner":
        return
    given = {"output": job.output, "extends": job.extends, "title_model": job.title_model}
    for name, paths in (("logs", job.logs), ("items", job.items)):
        given |= {f"{name}.{domain}": path for domain, path in paths.items()}
    for option, listed in given.items():
        # A list of logs has commas between them.
        for path in (part.strip() for part in listed.split(",")):
            if path and files.is_local(path):
                raise InputError(
                    f"{option}={path} is on this machine, where no worker of {runner} can reach it",
                    "copy it to a bucket and give its gs:// name",
                )


def announce(job: Job, runner: str, to_read: Sequence[Input], carried: Carried) -> None:
    """Prints to standard error what a job reads and needs, where it runs on a cluster.

    Raises:
      InputError: a worker would need more memory than the job allows.
    """
    if shuffle.on_one_machine(runner):
        return
    logs = [entry for entry in to_read if entry.kind == LOG]
    read = sum(file.bytes for file in describe(list(to_read), job))
    lines = _lines(logs)
    events = lines + sum(part.rows for _, part in carried.events)
    of_shard = -(-events // job.shards)
    memory = worker_bytes(job, of_shard) // _MB
    needs = f"{job.shards:,} shards of some {of_shard:,} events; a worker needs some {memory:,} MiB"
    print(
        f"{runner}: {read / 1e9:,.1f} GB to read, {len(logs):,} blocks (a gzipped file is one) of "
        f"some {lines:,} lines, {needs}, and {_OF_ITEM} bytes for each item with an id",
        file=sys.stderr,
        flush=True,
    )
    if job.hashed_users:
        print(
            f"{runner} gets the key of hash_user_ids in the job's request, and Dataflow keeps that "
            "request in temp_location",
            file=sys.stderr,
            flush=True,
        )
    if memory > job.worker_memory:
        enough = -(-events // _EVENTS_OF_SHARD)
        raise InputError(
            f"shards={job.shards} does not fit: {needs}, more than "
            f"worker_memory={job.worker_memory} allows",
            f"give shards={enough}, one for every {_EVENTS_OF_SHARD:,} lines"
            if enough > job.shards
            else "give smaller block_bytes, or the worker_memory that your machines have",
        )


def worker_bytes(job: Job, events: int) -> int:
    """Of memory for one thread of a worker that parses blocks and sorts shards of some events."""
    window = 3 * shuffle.WINDOW_BYTES if job.shuffle == shuffle.BEAM else 0
    return _LIBRARIES + max(_OF_BLOCK * job.block_bytes + window, _OF_EVENT * events)


def _lines(logs: Sequence[Input]) -> int:
    """A guess, by the size and the kind of the files."""
    files = {entry.unit.path: entry.unit for entry in logs}
    return sum(
        unit.file_bytes // (_LINE_BYTES_GZIPPED if unit.gzipped else _LINE_BYTES[unit.kind])
        for unit in files.values()
    )
