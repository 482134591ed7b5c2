"""TFRecord shards of a data set directory: whether all are there, and what of them can be read.

A record has a checksum. What follows a damaged one in its shard can't be found again, so it is
lost with it.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import tensorflow as tf

from sitn_tf import schema
from sitn_tf.errors import InputError, first_line

_PLACE = re.compile(r"-(\d{5})-of-(\d{5})$")
_REMEDY = "see python -m pipelines.verify, and build it again or bring the file back"
_AT = re.compile(r"\w+ record at \d+")
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Damage:
    """What is wrong with a shard.

    Attributes:
      shard: its path relative to the data set directory.
      lost: records that can't be read; 1 where the manifest does not say how many there were.
      why: for people.
    """

    shard: str
    lost: int
    why: str


def find(data_dir: str | pathlib.Path, stage: str, split: str, lossy: bool = False) -> list[str]:
    """The shards of a split, in their order.

    Args:
      lossy: whether some may be missing.

    Raises:
      InputError: one of them is missing, as the names of the others tell.
    """
    found = sorted(tf.io.gfile.glob(str(pathlib.Path(data_dir) / schema.shard_glob(stage, split))))
    places = [place for place in map(_PLACE.search, found) if place]
    if places and not lossy:
        missing = {*range(int(places[0][2]))} - {int(place[1]) for place in places}
        if missing:
            name = f"{_prefix(stage, split)}{min(missing):05d}-of-{places[0][2]}"
            raise InputError(f"{pathlib.Path(data_dir) / name} is missing", _REMEDY)
    return found


def _prefix(stage: str, split: str) -> str:
    """Of the names of a split's shards in a data set directory."""
    return schema.shard_glob(stage, split).removesuffix("*")


def damage(
    data_dir: str | pathlib.Path, manifest: schema.Manifest, stages: Iterable[str]
) -> list[Damage]:
    """Reads all shards of some stages; what is wrong with those that are not whole."""
    root, found = pathlib.Path(data_dir), []
    for stage in stages:
        for split in schema.SPLITS[stage]:
            there = {
                str(path.relative_to(root)) for path in root.glob(schema.shard_glob(stage, split))
            }
            prefix = _prefix(stage, split)
            told = {name for name in manifest.shards if name.startswith(prefix)}
            for shard in sorted(there | told):
                expected = manifest.shards.get(shard)
                records, why = readable(root / shard) if shard in there else (0, "it is missing")
                if why or (expected is not None and records != expected):
                    lost = 1 if expected is None else expected - records
                    why = why or f"it has {records:,} records, the manifest {expected:,}"
                    found.append(Damage(shard, lost, why))
    return found


def readable(path: str | pathlib.Path) -> tuple[int, str]:
    """How many records of a file can be read, and what is wrong with the next one, if anything."""
    records = tf.data.TFRecordDataset(str(path))
    try:
        return _count(records), ""
    except tf.errors.OpError as error:
        at = _AT.search(str(error))
        return _count(records.ignore_errors()), at[0] if at else first_line(error)


def _count(records: tf.data.Dataset) -> int:
    return int(records.reduce(np.int64(0), lambda count, _: count + 1))


def describe(data_dir: str | pathlib.Path, found: list[Damage]) -> str:
    """The first shards that are damaged, and how many more."""
    named = [
        f"{pathlib.Path(data_dir) / bad.shard} is damaged ({bad.why}; {bad.lost:,} records lost)"
        for bad in found[:_NAMED]
    ]
    more = len(found) - _NAMED
    return "; ".join(named) + (f"; and {more} more" if more > 0 else "")


def skipped(
    data_dir: str | pathlib.Path,
    manifest: schema.Manifest,
    stages: Iterable[str],
    most: int,
) -> dict[str, int]:
    """By shard, how many of its records have to be done without.

    Args:
      most: how many they may be together.

    Raises:
      InputError: they are more.
    """
    found = damage(data_dir, manifest, stages)
    lost = sum(bad.lost for bad in found)
    if lost > most:
        raise InputError(
            f"{lost:,} records are lost, skip_corrupt={most} allows {most:,}: "
            f"{describe(data_dir, found)}",
            _REMEDY,
        )
    return {bad.shard: bad.lost for bad in found}


def of_split(lost: Mapping[str, int], stage: str, split: str) -> int:
    """How many of the records that `skipped` found are of a split."""
    prefix = _prefix(stage, split)
    return sum(records for shard, records in lost.items() if shard.startswith(prefix))


def refuse(data_dir: str | pathlib.Path, stages: Iterable[str], what: str) -> InputError:
    """The error of a pass over some shards in which something is wrong, with their names."""
    found = damage(data_dir, schema.read_manifest(data_dir), stages)
    return InputError(
        describe(data_dir, found) if found else f"{data_dir}: {what}",
        f"{_REMEDY}; training does without up to N records with skip_corrupt=N",
    )


@contextlib.contextmanager
def named(data_dir: str | pathlib.Path, stages: Iterable[str]) -> Iterator[None]:
    """Where TensorFlow finds a record damaged, the error names the shard."""
    try:
        yield
    except tf.errors.DataLossError as error:
        raise refuse(data_dir, stages, first_line(error)) from error
