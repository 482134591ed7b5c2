"""The logs and the flags of the contract over all runners: each has to make the same of them."""

import pathlib

from sitn_tf import schema
from tests.pipelines import two_logs as logs

FLAGS = ["--shards=5", "--max_history=6", "--negatives=3", "--block_bytes=3000",
         "--source_requests", "--items_vector_field=emb", "--vector_dim=3",
         "--click_times"]  # fmt: skip


def write(folder: pathlib.Path) -> pathlib.Path:
    """Logs and item files of both domains; returns the folder."""
    logs.two_logs(folder, 600)
    for domain in schema.DOMAINS:
        logs.items_with_vectors(folder / f"{domain}.items.jsonl", domain[0])
    return folder


def flags(folder: pathlib.Path, output: pathlib.Path, *more: str) -> list[str]:
    """Of `pipelines.build_dataset`."""
    items = [f"--{domain}_items={folder}/{domain}.items.jsonl" for domain in schema.DOMAINS]
    return [*logs.flags_of(folder), *items, f"--output={output}", *FLAGS, *more]
