"""What a job asks of an object store grows with its log, not with blocks times shards."""

import json

from pipelines import build_dataset
from pipelines.job import run as job_run
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


def test_operations_per_event_do_not_grow():
    of_units = {units: counted(units, "beam") for units in (1, 4, 16)}
    assert {"opens", "reads", "bytes read", "bytes written", "creates", "renames", "deletes",
            "lists", "looks"} == set(of_units[1])  # fmt: skip
    for fewer, more in ((1, 4), (4, 16)):
        for operation, count in of_units[fewer].items():
            assert of_units[more][operation] / more <= count / fewer, operation
    # of a unit two blocks, of a shard two domains' sorted events and item counts, and statistics
    assert of_units[16]["opens"] - of_units[4]["opens"] <= 12 * 7 + 1
