"""Counts of records to the files by which `tfds.builder_from_directory` opens a stage."""

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipelines.logs import files
from sitn_tf import schema


def write(
    root: str,
    stage: str,
    features: Sequence[schema.Feature],
    shard_lengths: dict[str, list[int]],
    sizes: dict[str, int],
) -> None:
    """Writes the metadata of a stage: by split, the lengths of its shards and its bytes."""
    folder = files.join(root, stage)
    files.make_folder(folder)
    # tfds knows fewer filesystems than Beam: it writes here, and the files go on from here
    with tempfile.TemporaryDirectory() as local:
        _info(local, stage, features, shard_lengths, sizes).write_to_directory(local)
        for name in sorted(os.listdir(local)):
            with open(os.path.join(local, name)) as file:
                files.write_text(files.join(folder, name), file.read())


def _info(
    folder: str,
    stage: str,
    features: Sequence[schema.Feature],
    shard_lengths: dict[str, list[int]],
    sizes: dict[str, int],
) -> Any:
    import tensorflow_datasets as tfds

    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=schema.records_name(stage), filetype_suffix="tfrecord"
    )
    info = tfds.core.DatasetInfo(
        builder=tfds.core.dataset_info.DatasetIdentity(
            name=schema.records_name(stage),
            version=tfds.core.Version("1.0.0"),
            data_dir=folder,
            module_name="",
        ),
        features=_features(features),
        description=f"Records of {stage}: see sitn_tf/schema.py.",
    )
    info.set_file_format(tfds.core.FileFormat.TFRECORD)
    info.set_splits(
        tfds.core.splits.SplitDict(
            [
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=lengths,
                    num_bytes=sizes.get(split, 0),
                    filename_template=template,
                )
                for split, lengths in shard_lengths.items()
                if lengths
            ]
        )
    )
    return info


def _features(features: Sequence[schema.Feature]) -> Any:
    """A stage's features, for TensorFlow Datasets."""
    import tensorflow_datasets as tfds

    described: dict[str, Any] = {}
    for feature in features:
        if feature.dtype == "bytes":
            described[feature.name] = tfds.features.Text(doc=feature.meaning)
        else:
            dtype = np.dtype(feature.dtype)
            one = tfds.features.Scalar(dtype=dtype, doc=feature.meaning)
            described[feature.name] = tfds.features.Sequence(one) if feature.ragged else one
    return tfds.features.FeaturesDict(described)
