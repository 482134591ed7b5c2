r"""Scores stage-2 records offline with an exported version, in Beam (RunInference).

    python -m export.score_batch --servable=SERVABLE/1 \
        --input='DATASET/stage2/sitn_stage2-test.tfrecord-*' --output=SCORES

The same SavedModel as TF Serving's, so the same scores. Writes SCORES-*.parquet: user_id,
request_time, item (raw ids), ctr; one row a request. Files of an earlier run go when all are there.
Flags that are not listed go to Beam.
"""

import contextlib
import glob
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
from absl import flags
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from export import requests, version_files
from sitn_tf import beam_flags, beam_runner, beam_workers, cli, quiet, schema, storage_errors
from sitn_tf.errors import InputError, first_line

FLAGS = flags.FlagValues()
flags.DEFINE_string("servable", None, "A version, SERVABLE/1.", flag_values=FLAGS)
flags.DEFINE_string("input", None, "TFRecord files or a pattern.", flag_values=FLAGS)
flags.DEFINE_string("output", None, "Prefix of the Parquet files.", flag_values=FLAGS)
_BATCH = flags.DEFINE_integer("batch", 128, "Records at once, at most.", 1, flag_values=FLAGS)

SCORES = pa.schema(
    [
        ("user_id", pa.binary()),
        ("request_time", pa.int64()),
        ("item", pa.list_(pa.string())),
        ("ctr", pa.list_(pa.float32())),
    ]
)

Row = dict[str, Any]
_UUID_DIGITS = 32


class ServableHandler(ModelHandler[bytes, Row, "LoadedServable"]):
    """Serialized stage-2 records → rows of SCORES, by `serving_default`.

    Args:
      version: directory of an exported version, where every worker can read it.
      batch: records scored at once, at most.
      new_items: raw ids of target items behind the version's own, see `new_items`.
    """

    def __init__(self, version: str, batch: int = 128, new_items: Sequence[str] = ()) -> None:
        super().__init__()
        self.version, self.batch, self.new_items = version, batch, new_items

    def load_model(self) -> "LoadedServable":
        """Once a process."""
        return LoadedServable(self.version, self.new_items)

    def run_inference(
        self,
        batch: Sequence[bytes],
        model: "LoadedServable",
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[Row]:
        import tensorflow as tf

        from sitn_tf import data

        ctr = model.serving_default(examples=tf.constant(batch))[requests.CTR].numpy()
        parsed = data.parse(
            tf.constant(batch), (schema.USER_ID, schema.REQUEST_TIME, schema.CANDIDATES)
        )
        candidates = parsed[schema.CANDIDATES.name].numpy()
        for user, time, ids, scores in zip(
            parsed[schema.USER_ID.name].numpy(),
            parsed[schema.REQUEST_TIME.name].numpy(),
            candidates,
            ctr,
            strict=True,
        ):
            yield _row(user, int(time), ids, scores, model.items)

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        return {"max_batch_size": self.batch}

    def get_metrics_namespace(self) -> str:
        return "sitn"


class LoadedServable:
    """A version in TensorFlow's Python runtime, with the raw ids of target items."""

    def __init__(self, version: str, new_items: Sequence[str] = ()) -> None:
        import tensorflow as tf

        # A signature does not keep the model that its variables belong to alive.
        self._loaded = tf.saved_model.load(version)
        self.serving_default = self._loaded.signatures[requests.SERVING_DEFAULT]
        target_items = requests.read_vocabularies(pathlib.Path(version) / "assets")[schema.TARGET]
        self.items = [None, None, *target_items, *new_items]


def check_same_ids(version: str, file: str) -> None:
    """Refuses records whose ids mean other items than those of the version.

    Records hold ids, so they must come from the data set of the version, or from one that
    extends it: vocabularies are append-only. Checked where the data set is on this machine.

    Args:
      file: of the input, `<data set>/stage2/<shard>`.

    Raises:
      InputError: an id is of one item there and of another here.
    """
    source = requests.read_vocabularies(pathlib.Path(file).parent.parent / "vocabularies")
    served = requests.read_vocabularies(pathlib.Path(version) / "assets")
    for domain in schema.DOMAINS:
        pairs = zip(source[domain], served[domain], strict=False)
        for number, (theirs, ours) in enumerate(pairs, start=schema.FIRST_ID):
            if theirs != ours:
                raise InputError(
                    f"input={file}: its {domain} id {number} is {theirs!r}, that of "
                    f"{version} is {ours!r}",
                    "give records of the data set that the version was trained on, or of one "
                    "that extends it",
                )


def new_items(version: str, files: Iterable[str]) -> list[str]:
    """Raw ids of the target items that data sets have behind those of a version, in their order.

    The version scores them as unknown; their names are the data set's to tell. None are found
    where it is not on this machine.

    Args:
      files: of the input, one a data set, `<data set>/stage2/<shard>`.

    Raises:
      InputError: an id is of one item in one data set and of another in another.
    """
    served = len(requests.read_vocabularies(pathlib.Path(version) / "assets")[schema.TARGET])
    found: list[str] = []
    for file in files:
        known = requests.read_vocabularies(pathlib.Path(file).parent.parent / "vocabularies")
        shorter, longer = sorted((found, [*known[schema.TARGET]][served:]), key=len)
        if longer[: len(shorter)] != shorter:
            raise InputError(
                f"input={file}: its new target items are not those of the other data sets",
                "score the data sets one by one",
            )
        found = longer
    return found


def check_records(file: str, version: str) -> None:
    """Refuses a file whose first record is not of stage 2, before a job fails on it.

    Raises:
      InputError: not a TFRecord file, records of something else, or without the times of clicks
        that the version reads.
    """
    import tensorflow as tf

    from sitn_tf import data

    described = version_files.read_metadata(pathlib.Path(version))["signatures"]
    read = described[requests.SCORE]["inputs"]
    times = tuple(feature for feature in schema.TIMES_OF_DOMAIN.values() if feature.name in read)
    try:
        for serialized in tf.data.TFRecordDataset(file).batch(1).take(1):
            data.parse(serialized, (*schema.STAGE2_FEATURES, *times))
    except (tf.errors.InvalidArgumentError, tf.errors.DataLossError) as error:
        timed = " of a data set built with --click_times" if times else ""
        raise InputError(
            f"input={file} has no stage-2 records{timed} ({first_line(error)[:200]})",
            "give DATASET/stage2/sitn_stage2-*.tfrecord-*",
        ) from error


def _row(
    user: bytes, time: int, ids: np.ndarray, scores: np.ndarray, items: Sequence[str | None]
) -> Row:
    real = ids != schema.PAD_ID
    return {
        "user_id": user,
        "request_time": time,
        "item": [items[i] if i < len(items) else None for i in ids[real]],
        "ctr": scores[real].tolist(),
    }


def build(
    pipeline: beam.Pipeline,
    version: str,
    source: str,
    output: str,
    batch: int,
    new_items: Sequence[str] = (),
) -> None:
    """Adds the whole job to a pipeline."""
    (
        pipeline
        | "ReadRecords" >> beam.io.ReadFromTFRecord(source)
        | "Score" >> RunInference(ServableHandler(version, batch, new_items))
        | "WriteScores"
        >> beam.io.WriteToParquet(output, SCORES, file_name_suffix=".parquet", codec="zstd")
    )


def score_records(
    version: str, source: str, output: str, batch: int = 128, options: PipelineOptions | None = None
) -> None:
    """Runs the whole job.

    Args:
      version: directory of an exported version.
      source: TFRecord files of stage-2 records, or a pattern.
      output: prefix of the Parquet files.
      batch: records scored at once, at most.
      options: Beam's.

    Raises:
      InputError: no such version or files, a damaged version, records of other items or of no
        requests, a disk that is full, read-only or gone.
    """
    version_files.check_whole(pathlib.Path(version))
    matched = beam.io.filesystems.FileSystems.match([source])[0].metadata_list
    if not matched:
        raise InputError(f"input={source} matches no file", "give stage-2 TFRecord files")
    files = sorted(file.path for file in matched)
    for file in files:
        if pathlib.Path(file).is_dir():
            raise InputError(
                f"input={file} is a directory", "give DATASET/stage2/sitn_stage2-*.tfrecord-*"
            )
    one_a_folder = {str(pathlib.Path(file).parent): file for file in files}.values()
    for file in one_a_folder:
        check_same_ids(version, file)
    more = new_items(version, one_a_folder)
    for file in files:
        check_records(file, version)
    options = options or PipelineOptions([])
    beam_runner.local_by_default(options)
    try:
        with (
            _all_or_none(output),
            beam_workers.errors_in_one_line(),
            beam.Pipeline(options=options) as pipeline,
        ):
            build(pipeline, version, source, output, batch, more)
    except InputError:
        raise
    except Exception as error:
        if told := storage_errors.in_one_line(error, unnamed=f"{output}-*.parquet"):
            raise InputError(told) from error
        damage = _of_damage(files)
        if damage is None:
            raise
        raise damage from error
    finally:
        remove_unfinished(output)


@contextlib.contextmanager
def _all_or_none(output: str) -> Iterator[None]:
    """Of a job that fails the files that it has put in place go, and earlier ones stay.

    Of one that succeeds those of an earlier one with another number of files go: what reads the
    prefix would read both.
    """
    before = _put_in_place(output)
    try:
        yield
    except BaseException:
        for path, _ in _put_in_place(output) - before:
            path.unlink(missing_ok=True)
        raise
    for path, _ in before & _put_in_place(output):
        path.unlink(missing_ok=True)


def _put_in_place(output: str) -> set[tuple[pathlib.Path, int]]:
    """The Parquet files of an output on this machine, each with its number in the file system."""
    prefix = pathlib.Path(output)
    place = "[0-9]" * 5
    named = prefix.parent.glob(f"{glob.escape(prefix.name)}-{place}-of-{place}.parquet")
    found = set()
    for path in named:
        with contextlib.suppress(FileNotFoundError):  # a job beside this one has replaced it
            found.add((path, path.stat().st_ino))
    return found


def _of_damage(files: Sequence[str]) -> InputError | None:
    """The error of a job that failed on damaged files; Beam's names none of them."""
    from sitn_tf import shards

    for file in files:
        records, why = shards.readable(file)
        if why:
            return InputError(
                f"input={file} is damaged ({why}, after {records:,} that can be read)",
                "bring the file back, or build the data set again",
            )
    return None


def remove_unfinished(output: str) -> None:
    """Removes what jobs with this output that were stopped have left beside it.

    Beam removes its folder of passing files only where a job succeeds. In a bucket there are no
    folders; what is left there is for its lifecycle rules.
    """
    prefix = pathlib.Path(output)
    folder = f"beam-temp-{glob.escape(prefix.name)}-{'[0-9a-f]' * _UUID_DIGITS}"
    for left in prefix.parent.glob(folder):
        shutil.rmtree(left, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Runs the job and says what was written."""
    servable, source, output = (cli.require(FLAGS, f) for f in ("servable", "input", "output"))
    options = beam_flags.options(arguments, FLAGS)
    quiet.import_tensorflow()
    score_records(servable, source, output, _BATCH.value, options)
    print(f"wrote {output}-*.parquet\nnext: pyarrow.parquet.read_table('{output}-...')")


if __name__ == "__main__":
    cli.run(main, FLAGS, keep_unknown=True)
