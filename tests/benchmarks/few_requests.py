"""A data set with few of stage 2's training requests: a learning curve's points.

    python -m tests.benchmarks.few_requests --data_dir=DATASET --share=0.02 --output=FEW

Everything else stays: histories, stage 1's users, the other splits, ids and items. So a study
on FEW says what stage 1 is worth where labels are few, which is what it is for. `pipelines.verify`
finds FEW in order but for the requests that were left out.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import zlib

from absl import flags

from pipelines import manifest_entries
from pipelines.job import tfds_metadata
from sitn_tf import cli, quiet, schema, whole_files
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("data_dir", None, "A data set directory.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "The data set directory to make.", flag_values=FLAGS)
_SHARE = flags.DEFINE_float("share", 0.1, "Of the training requests.", flag_values=FLAGS)


def is_kept(record: bytes, share: float) -> bool:
    """Whether a record is among the kept, by a hash of its bytes: the same for any shards, and
    a larger share keeps what a smaller one does.
    """
    return zlib.crc32(record) < share * 2**32


def thin(source: pathlib.Path, output: pathlib.Path, share: float) -> schema.Manifest:
    """Writes the data set directory `output`; returns its manifest.

    Raises:
      InputError: `output` is there already, or nothing would be left.
    """
    if not 0 < share <= 1:
        raise InputError(f"share={share} is not above 0 and at most 1")
    if output.exists():
        raise InputError(f"output={output} exists", "name another, or remove it")
    manifest = schema.read_manifest(source)
    quiet.import_tensorflow()
    with whole_files.directory(output) as making:
        return _fill(making, source, manifest, share)


def _fill(
    making: pathlib.Path, source: pathlib.Path, manifest: schema.Manifest, share: float
) -> schema.Manifest:
    import tensorflow as tf

    shutil.copytree(source, making, dirs_exist_ok=True)
    checksums = json.loads((making / schema.CHECKSUMS_FILE).read_text())
    shards = dict(manifest.shards)
    for shard in making.glob(schema.shard_glob(schema.STAGE2, schema.TRAIN)):
        records = tf.data.TFRecordDataset(str(shard)).as_numpy_iterator()
        kept = [record for record in records if is_kept(record, share)]
        with tf.io.TFRecordWriter(str(shard)) as writer:
            for record in kept:
                writer.write(record)
        place = str(shard.relative_to(making))
        shards[place] = len(kept)
        checksums[place] = hashlib.sha256(shard.read_bytes()).hexdigest()
    lengths, sizes = {}, {}
    for split in schema.STAGE2_SPLITS:
        places = sorted(making.glob(schema.shard_glob(schema.STAGE2, split)))
        lengths[split] = [shards[str(place.relative_to(making))] for place in places]
        sizes[split] = sum(place.stat().st_size for place in places)
    if not sum(lengths[schema.TRAIN]):
        raise InputError(f"share={share} leaves no training request", "give a larger one")
    tfds_metadata.write(str(making), schema.STAGE2, lengths, sizes)
    whole_files.write_json(making / schema.CHECKSUMS_FILE, checksums)
    for page in making.glob("statistics.*"):
        page.unlink()
    stage2 = manifest.records[schema.STAGE2] | {schema.TRAIN: sum(lengths[schema.TRAIN])}
    made = dataclasses.replace(
        manifest,
        dataset_hash=manifest_entries.dataset_hash(checksums),
        split=manifest.split | {"share_of_training_requests": share},
        records=manifest.records | {schema.STAGE2: stage2},
        shards=shards,
    )
    (making / schema.MANIFEST_FILE).write_text(made.to_json())
    return made


def main(_: list[str]) -> None:
    """Prints what is left."""
    output = pathlib.Path(cli.require(FLAGS, "output"))
    made = thin(pathlib.Path(cli.require(FLAGS, "data_dir")), output, _SHARE.value)
    print(
        f"wrote {output}: {made.records[schema.STAGE2][schema.TRAIN]:,} training requests\n"
        f"next: python -m sitn_tf.experiments --data_dir={output} --workdir=STUDY"
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
