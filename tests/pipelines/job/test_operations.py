"""What a job asks of an object store grows with its log, not with blocks times shards."""

import json
import threading
import time

import pytest

from pipelines import build_dataset
from pipelines.job import assembly
from pipelines.job import run as job_run
from pipelines.logs import files
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.counted_files import STORE

UNIT_EVENTS = 150
"""Events of each log in a unit; a unit has one block and one user shard."""


def counted(units, shuffle):
    """Operations of the job on logs of some units, with shards in proportion."""
    STORE.clear()
    for domain, seed in (("source", 1), ("target", 2)):
        rows = logs.clicks(seed, 15 * units, 50, units * UNIT_EVENTS - 3, domain[0])
        lines = [json.dumps(row).encode() + b"\n" for row in rows]
        STORE.objects[f"count://logs/{domain}.jsonl"] = b"".join(lines)
    block = len(STORE.objects["count://logs/source.jsonl"]) // units + 1
    job = build_dataset.job_of([
        "--source_log=count://logs/source.jsonl", "--target_log=count://logs/target.jsonl",
        "--output=count://out/data", f"--shards={units}", f"--block_bytes={block}",
        f"--shuffle={shuffle}", "--max_history=6", "--negatives=2",
    ])  # fmt: skip
    job_run.build_dataset(job)
    assert "count://out/data/manifest.json" in STORE.objects
    assert not any(".tmp-" in name for name in STORE.objects)
    return dict(STORE.counts)


@pytest.fixture(scope="module")
def of_units():
    """Operations, and what one thread waits for as a worker and then as the launcher; by units."""
    found, launcher = {}, {}
    assemble = assembly.assemble

    def watched(*arguments):
        launcher["before"] = STORE.waited[threading.get_ident()]
        return assemble(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "assemble", watched)
        for units in (1, 4, 16):
            counts = counted(units, "beam")
            after = STORE.waited[threading.get_ident()] - launcher["before"]
            found[units] = counts, launcher["before"], after
    return found


def test_operations_per_event_do_not_grow(of_units):
    of_units = {units: counts for units, (counts, *_) in of_units.items()}
    assert {"opens", "reads", "bytes read", "bytes written", "creates", "renames", "deletes",
            "lists", "looks"} == set(of_units[1])  # fmt: skip
    for fewer, more in ((1, 4), (4, 16)):
        for operation, count in of_units[fewer].items():
            assert of_units[more][operation] / more <= count / fewer, operation
    # of a unit two blocks, of a shard two domains' sorted events and item counts, and statistics
    assert of_units[16]["opens"] - of_units[4]["opens"] <= 12 * 7 + 1


def test_the_launcher_waits_for_as_many_operations_whatever_the_log(of_units):
    """One after another: hundreds of files are renamed, read and deleted, but many at once."""
    (*_, few), (counts, _, many) = of_units[4], of_units[16]
    assert few < 30
    assert many - few <= 4  # the summary is longer, and read 4 KiB at once
    assert counts["renames"] > 150


def test_a_worker_waits_for_few_operations_a_unit(of_units):
    """One after another, of the 60 that a unit takes."""
    (_, few, _), (_, many, _) = of_units[4], of_units[16]
    # two blocks' open and two reads; a shard's events of both domains at once, two of its counts
    # of items; five files of records and one of statistics
    assert (many - few) / (16 - 4) <= 2 * 3 + 1 + 2 + 5 + 1


def test_reading_ahead_keeps_the_order_and_raises():
    read = []

    def later(path):
        if path == "count://3":
            raise InputError("it is damaged")
        time.sleep(0.02 if path == "count://0" else 0)
        read.append(path)
        return path

    paths = [f"count://{i}" for i in range(3)]
    assert list(files.ahead(later, paths, at_once=2)) == paths
    assert sorted(read) == paths
    taken = files.ahead(later, [*paths, "count://3", "count://4"], at_once=2)
    assert [next(taken), next(taken), next(taken)] == paths
    with pytest.raises(InputError, match="damaged"):
        next(taken)
    local = files.ahead(read.append, ["a", "b"])
    next(local)
    assert read[-1] == "a"  # and not b before it is asked for
