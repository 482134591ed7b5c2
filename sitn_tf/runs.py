"""Run directories: what a training run is and where its parts lie.

<workdir>/stage1/  or  <workdir>/stage2/
config.json  run.json  manifest.json    the whole configuration, versions, data set
checkpoints/last/  checkpoints/best/
history.json  history.csv               one entry an epoch
tensorboard/train/  .../validation/     event files
initialization.json                     stage 2: variables restored and fresh
race.json                               stage 2: how its start won, where starts raced
skipped.json                            records done without, by damaged shard, if there are any
metrics.json                            written last: its presence means finished
vocabularies/  items/  checksums.json   stage 2: copied, so that an export needs no more
predictions-<split>.npz                 stage 2: where its evaluation keeps them
"""

import atexit
import csv
import dataclasses
import errno
import hashlib
import io
import json
import os
import pathlib
import platform
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import sitn_tf
from sitn_tf import checksums, schema, whole_files
from sitn_tf import config as configs
from sitn_tf.commit import UNKNOWN, commit
from sitn_tf.errors import InputError, first_line
from sitn_tf.item_tables import ItemTable, read_item_table, share_features

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
HISTORY_FILE = "history.json"
HISTORY_TABLE = "history.csv"
METRICS_FILE = "metrics.json"
INITIALIZATION_FILE = "initialization.json"
RACE_FILE = "race.json"
SKIPPED_FILE = "skipped.json"
BEST = "checkpoints/best"
LAST = "checkpoints/last"
EVENTS = "tensorboard"
NOT_FINITE_BATCH = "not_finite_batch.npz"

COPIED = ("vocabularies", "items")
"""Folders of the data set that a stage-2 run keeps a copy of."""
NO_INIT = "none"
"""`init` of a stage 2 from scratch."""


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What `run.json` says beside the configuration.

    Attributes:
      stage: schema.STAGE1 or schema.STAGE2.
      data_dir: the data set it was trained on.
      dataset_hash: that data set's identity.
      init: run directory of the stage 1 it started from, or "none".
      versions: of Python and of the packages that matter.
      commit: of this code (sitn_tf/commit.py).
      init_hash: what `stage1_hash` says of `init`; "" where it is not known.
    """

    stage: str
    data_dir: str
    dataset_hash: str
    init: str
    versions: dict[str, str]
    commit: str = UNKNOWN
    init_hash: str = ""

    @property
    def told_versions(self) -> str:
        """For people."""
        return ", ".join(f"{name} {version}" for name, version in self.versions.items())


def versions() -> dict[str, str]:
    """Of Python and of the packages that weights depend on."""
    import numpy as np
    import tensorflow as tf
    import tf_keras

    return {
        "python": platform.python_version(),
        "sitn_tf": sitn_tf.__version__,
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "numpy": np.__version__,
    }


def info_of(
    stage: str, data_dir: str | pathlib.Path, manifest: schema.Manifest, init: str
) -> RunInfo:
    """Of a run of this code that begins; the arguments are `RunInfo`'s."""
    return RunInfo(
        stage, str(data_dir), manifest.dataset_hash, init, versions(), commit(), stage1_hash(init)
    )


def read_tables(
    data_dir: str | pathlib.Path, manifest: schema.Manifest, config: configs.Config
) -> dict[str, ItemTable]:
    """The item tables of both domains, as the model's configuration wants them.

    Args:
      data_dir: a data set directory, or a stage-2 run directory.

    Raises:
      InputError: an item table or a vocabulary is missing or not as it was built.
    """
    checksums.check(pathlib.Path(data_dir), COPIED)
    tables = {
        domain: read_item_table(
            data_dir, manifest, domain, config.items.side_features, config.items.title_words
        )
        for domain in schema.DOMAINS
    }
    return share_features(tables, data_dir) if config.items.shared_side_features else tables


def prepare(
    run_dir: pathlib.Path,
    config: configs.Config,
    manifest: schema.Manifest,
    info: RunInfo,
    overwrite: bool = False,
) -> None:
    """Makes a run directory, or checks that an existing one is of this very run.

    Args:
      overwrite: remove a run that is there.

    Raises:
      InputError: the directory holds a run of another configuration or data set.
    """
    if (run_dir / RUN_FILE).is_file():
        if not overwrite:
            _check_same_run(run_dir, config, info)
            return
        shutil.rmtree(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    whole_files.write_text(run_dir / CONFIG_FILE, config.to_json())
    whole_files.write_text(run_dir / schema.MANIFEST_FILE, manifest.to_json())
    if info.stage == schema.STAGE2:
        data_dir = pathlib.Path(info.data_dir)
        for part in COPIED:
            shutil.copytree(data_dir / part, run_dir / part, dirs_exist_ok=True)
        if (data_dir / schema.CHECKSUMS_FILE).is_file():
            shutil.copyfile(data_dir / schema.CHECKSUMS_FILE, run_dir / schema.CHECKSUMS_FILE)
    whole_files.write_json(run_dir / RUN_FILE, dataclasses.asdict(info))


def check_there(run_dir: pathlib.Path) -> None:
    """Raises FileNotFoundError where a run directory was removed: no half of it is made again."""
    if not (run_dir / RUN_FILE).is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(run_dir / RUN_FILE))


def shadow(run_dir: pathlib.Path) -> pathlib.Path:
    """A directory of this process's own, with what the run directory has by now.

    Of several workers only the first writes the run directory; the others do the same in
    shadows of it, removed when they end. It is copied before the first worker can change it:
    that one waits for all to make their variables.
    """
    own = tempfile.TemporaryDirectory(prefix="sitn_tf_worker_")
    atexit.register(own.cleanup)
    copied = pathlib.Path(own.name) / run_dir.name
    for directory, copy in ((run_dir, copied), (race_of(run_dir), race_of(copied))):
        if directory.is_dir():
            shutil.copytree(directory, copy)
    return copied


def race_of(run_dir: pathlib.Path) -> pathlib.Path:
    """Where the starts of a stage-2 run race (training/race.py): beside it."""
    return run_dir.with_name(f"{run_dir.name}.race")


def _check_same_run(run_dir: pathlib.Path, config: configs.Config, info: RunInfo) -> None:
    changed = configs.differences(read_config(run_dir), config)
    theirs = read_info(run_dir)
    if theirs.dataset_hash != info.dataset_hash:
        changed.append(f"dataset_hash: {theirs.dataset_hash}, {info.dataset_hash}")
    changed += changed_init(run_dir, theirs.init, theirs.init_hash, info.init)
    if changed:
        raise InputError(
            f"{run_dir} holds another run (there, here: {'; '.join(changed)})",
            "train into another directory, or give overwrite=True",
        )


def same_init(run_dir: pathlib.Path, theirs: str, ours: str) -> bool:
    """Whether `init` of a run is what is given now, or was it before their parent was moved.

    Args:
      theirs, ours: as `RunInfo.init`; after a move `theirs` is not there any more.
    """
    if theirs == ours or NO_INIT in (theirs, ours):
        return theirs == ours
    old, new = pathlib.Path(theirs), pathlib.Path(ours).resolve()
    beside = new.parent in run_dir.resolve().parents
    return beside and new.name == old.name and not old.exists()


def stage1_hash(init: str) -> str:
    """An identity of a finished stage 1: the same wherever it lies, another for other weights.

    Args:
      init: as `RunInfo.init`.

    Returns:
      Twelve hexadecimal digits; "" where there is none.
    """
    run_dir = pathlib.Path(init)
    if init == NO_INIT or not (run_dir / CONFIG_FILE).is_file():
        return ""
    # The index of a checkpoint has checksums of its tensors.
    parts = [run_dir / CONFIG_FILE, *sorted((run_dir / BEST).glob("*.index"))]
    digests = "".join(whole_files.sha256(part) for part in parts)
    return hashlib.sha256(digests.encode()).hexdigest()[:12]


def changed_init(run_dir: pathlib.Path, theirs: str, their_hash: str, ours: str) -> list[str]:
    """How the stage 1 that is given now differs from a run's, if it does.

    Args:
      theirs, their_hash: `RunInfo.init` and `.init_hash` of the run.
      ours: `init` that is given now.
    """
    if not same_init(run_dir, theirs, ours):
        return [f"init: {theirs}, {ours}"]
    our_hash = stage1_hash(ours)
    if their_hash and our_hash and their_hash != our_hash:
        return [f"init={ours}, which was trained again: {their_hash}, {our_hash}"]
    return []


def write_history(run_dir: pathlib.Path, history: list[dict[str, Any]]) -> None:
    """Writes the epochs' entries as JSON and as CSV, a column for every name in any of them."""
    whole_files.write_json(run_dir / HISTORY_FILE, history)
    columns = list(dict.fromkeys(name for entry in history for name in entry))
    table = io.StringIO()
    rows = csv.DictWriter(table, columns, lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    whole_files.write_text(run_dir / HISTORY_TABLE, table.getvalue())


def read_json(path: pathlib.Path, default: Any) -> Any:
    """A file's content, `default` where there is none; raises InputError for a damaged one."""
    if not path.is_file():
        return default
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, first_line(error)) from error


def read_config(run_dir: pathlib.Path) -> configs.Config:
    """A run's configuration; raises InputError for a damaged or missing one."""
    told = _read_object(run_dir / CONFIG_FILE)
    try:
        return configs.Config.from_dict(told)
    except InputError as error:
        raise _damaged(run_dir / CONFIG_FILE, str(error)) from error


def read_asked(run_dir: pathlib.Path) -> configs.Config:
    """The configuration that a run was asked for: of a race's winner, that of the race."""
    raced = read_json(run_dir / RACE_FILE, None)
    return read_config(run_dir) if raced is None else configs.Config.from_dict(raced["asked"])


def was_offered_stage1(run_dir: pathlib.Path) -> bool:
    """Whether a stage-2 run was offered a stage 1, wherever it then started.

    Raises:
      InputError: what the run says of itself is damaged.
    """
    started = read_json(run_dir / INITIALIZATION_FILE, {})
    raced = (run_dir / RACE_FILE).is_file()
    return raced or read_info(run_dir).init != NO_INIT or started.get("lift") is not None


def read_info(run_dir: pathlib.Path) -> RunInfo:
    """What `run.json` says; raises InputError for a damaged or missing one."""
    try:
        return RunInfo(**_read_object(run_dir / RUN_FILE))
    except TypeError as error:
        raise _damaged(run_dir / RUN_FILE, first_line(error)) from error


def read_history(run_dir: pathlib.Path) -> list[dict[str, Any]]:
    """An entry an epoch, one at least; raises InputError for a damaged or missing file."""
    history = read_json(run_dir / HISTORY_FILE, None)
    if not isinstance(history, list) or not history:
        why = "missing" if history is None else "without an epoch"
        raise _damaged(run_dir / HISTORY_FILE, why)
    return history


def write_metrics(run_dir: pathlib.Path, split: str, row: Mapping[str, float]) -> None:
    """Adds what a split came to; of the validation split training has said more, which stays.

    Read just before, so that two who score splits at a time don't lose each other's.
    """
    metrics = read_json(run_dir / METRICS_FILE, {})
    metrics[split] = metrics.get(split, {}) | row
    whole_files.write_json(run_dir / METRICS_FILE, metrics)


def _read_object(path: pathlib.Path) -> dict[str, Any]:
    content = read_json(path, None)
    if not isinstance(content, dict):
        raise _damaged(path, "missing" if content is None else "not a JSON object")
    return content


def _damaged(path: pathlib.Path, how: str) -> InputError:
    return InputError(
        f"{path} is damaged ({how})",
        "bring it back, or train again with python -m sitn_tf.train --overwrite",
    )


def read_manifest(run_dir: pathlib.Path) -> schema.Manifest:
    """The run's own copy of its data set's manifest; raises InputError for a damaged one."""
    try:
        return schema.read_manifest(run_dir)
    except InputError as error:
        raise _damaged(run_dir / schema.MANIFEST_FILE, error.message) from error


def read_its_manifest(run_dir: pathlib.Path, data_dir: str | pathlib.Path) -> schema.Manifest:
    """The manifest of the data set that a run was trained on, wherever it is now.

    Raises:
      InputError: no data set there, or another one.
    """
    manifest, trained_on = schema.read_manifest(data_dir), read_info(run_dir).dataset_hash
    if manifest.dataset_hash != trained_on:
        raise InputError(
            f"data_dir={data_dir} is the data set {manifest.dataset_hash}, {run_dir} was trained "
            f"on {trained_on}",
            "give that one",
        )
    return manifest


def is_finished(run_dir: pathlib.Path) -> bool:
    return (run_dir / METRICS_FILE).is_file()


def check_finished(run_dir: pathlib.Path, stage: str) -> None:
    """Raises InputError unless the directory holds a finished run of this stage."""
    number = stage.removeprefix("stage")
    remedy = f"train one with python -m sitn_tf.train --stage={number}"
    near = [folder for folder in (run_dir / stage, run_dir.with_name(stage)) if folder != run_dir]
    if there := [folder for folder in near if (folder / RUN_FILE).is_file()]:
        remedy = f"name the one of stage {number}, {there[0]}"
    if not (run_dir / RUN_FILE).is_file():
        raise InputError(
            f"{run_dir} holds no run of stage {number}", f"{remedy}, or bring its {RUN_FILE} back"
        )
    trained = read_info(run_dir).stage
    if trained != stage:
        raise InputError(f"{run_dir} holds a run of {trained}, not of {stage}", remedy)
    if not is_finished(run_dir):
        raise InputError(
            f"{run_dir} holds an unfinished run",
            f"give its command again to finish it (it has no {METRICS_FILE})",
        )
