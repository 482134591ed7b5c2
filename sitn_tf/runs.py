"""Run directories: what a training run is, where its parts lie, and how to load its model.

<workdir>/stage1/  or  <workdir>/stage2/
config.json  run.json  manifest.json    the whole configuration, versions, data set
checkpoints/last/  checkpoints/best/
history.json  history.csv               one entry an epoch
tensorboard/train/  .../validation/     event files
initialization.json                     stage 2: variables restored and fresh
metrics.json                            written last: its presence means finished
vocabularies/  items/                   stage 2: copied, so that an export needs no more
"""

import atexit
import csv
import dataclasses
import io
import json
import pathlib
import platform
import shutil
import tempfile
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

import sitn_tf
from sitn_tf import cli, schema, whole_files
from sitn_tf import config as configs
from sitn_tf.errors import InputError
from sitn_tf.item_tables import ItemTable, read_item_table
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.models.scorer import Scorer

CONFIG_FILE = "config.json"
RUN_FILE = "run.json"
HISTORY_FILE = "history.json"
HISTORY_TABLE = "history.csv"
METRICS_FILE = "metrics.json"
INITIALIZATION_FILE = "initialization.json"
BEST = "checkpoints/best"
LAST = "checkpoints/last"
EVENTS = "tensorboard"
NOT_FINITE_BATCH = "not_finite_batch.npz"

UNREADABLE = (tf.errors.OpError, ValueError, LookupError, RuntimeError)
"""What TensorFlow raises of a checkpoint with missing, cut or altered bytes."""


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What `run.json` says beside the configuration.

    Attributes:
      stage: schema.STAGE1 or schema.STAGE2.
      data_dir: the data set it was trained on.
      dataset_hash: that data set's identity.
      init: run directory of the stage 1 it started from, or "none".
      versions: of Python and of the packages that matter.
    """

    stage: str
    data_dir: str
    dataset_hash: str
    init: str
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished stage-2 run, loaded."""

    scorer: Scorer
    config: configs.Config
    manifest: schema.Manifest
    tables: dict[str, ItemTable]
    metrics: dict[str, Any]
    info: RunInfo
    data_dir: pathlib.Path
    run_dir: pathlib.Path


@dataclasses.dataclass(frozen=True)
class PretrainedRun:
    """A finished stage-1 run with its model loaded."""

    model: Pretrainer
    config: configs.Config
    tables: dict[str, ItemTable]
    info: RunInfo
    data_dir: pathlib.Path


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "sitn_tf": sitn_tf.__version__,
        "tensorflow": tf.__version__,
        "tf_keras": tf_keras.__version__,
        "numpy": np.__version__,
    }


def read_tables(
    data_dir: str | pathlib.Path, manifest: schema.Manifest, config: configs.Config
) -> dict[str, ItemTable]:
    """The item tables of both domains, as the model's configuration wants them."""
    return {
        domain: read_item_table(
            data_dir, manifest, domain, config.items.side_features, config.items.title_words
        )
        for domain in schema.DOMAINS
    }


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
        for part in ("vocabularies", "items"):
            shutil.copytree(pathlib.Path(info.data_dir) / part, run_dir / part, dirs_exist_ok=True)
    whole_files.write_json(run_dir / RUN_FILE, dataclasses.asdict(info))


def shadow(run_dir: pathlib.Path) -> pathlib.Path:
    """A directory of this process's own, with what the run directory has by now.

    Of several workers only the first writes the run directory; the others do the same in
    shadows of it, removed when they end. It is copied before the first worker can change it:
    that one waits for all to make their variables.
    """
    own = tempfile.TemporaryDirectory(prefix="sitn_tf_worker_")
    atexit.register(own.cleanup)
    copied = pathlib.Path(own.name) / run_dir.name
    if run_dir.is_dir():
        shutil.copytree(run_dir, copied)
    return copied


def _check_same_run(run_dir: pathlib.Path, config: configs.Config, info: RunInfo) -> None:
    found = read_config(run_dir)
    changed = configs.differences(found, config)
    theirs = read_info(run_dir)
    for field in ("dataset_hash", "init"):
        if getattr(theirs, field) != getattr(info, field):
            changed.append(f"{field}: {getattr(theirs, field)}, {getattr(info, field)}")
    if changed:
        raise InputError(
            f"{run_dir} holds another run (there, here: {'; '.join(changed)}): "
            "name another --workdir, or give --overwrite"
        )


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
        raise InputError(
            f"{path} is damaged ({cli.first_line(error)}): bring it back, or train again with "
            "--overwrite"
        ) from error


def read_config(run_dir: pathlib.Path) -> configs.Config:
    return configs.Config.from_json((run_dir / CONFIG_FILE).read_text())


def read_info(run_dir: pathlib.Path) -> RunInfo:
    return RunInfo(**json.loads((run_dir / RUN_FILE).read_text()))


def check_finished(run_dir: pathlib.Path, stage: str) -> None:
    """Raises InputError unless the directory holds a finished run of this stage."""
    number = stage.removeprefix("stage")
    remedy = f"train one with python -m sitn_tf.train --stage={number}"
    if not (run_dir / RUN_FILE).is_file():
        raise InputError(f"{run_dir} holds no run of stage {number}: {remedy}")
    found = read_info(run_dir).stage
    if found != stage:
        raise InputError(f"{run_dir} holds a run of {found}, not of {stage}: {remedy}")
    if not (run_dir / METRICS_FILE).is_file():
        raise InputError(f"{run_dir} holds an unfinished run: give its command again to finish it")


def load_scorer(run_dir: str | pathlib.Path) -> Run:
    """Loads the best checkpoint of a finished stage-2 run; needs no data set.

    The scorer computes in float32, as its weights are, whatever it was trained in.

    Raises:
      InputError: no finished stage-2 run there.
    """
    run_dir = pathlib.Path(run_dir)
    check_finished(run_dir, schema.STAGE2)
    config, info = read_config(run_dir), read_info(run_dir)
    manifest = schema.Manifest.from_json((run_dir / schema.MANIFEST_FILE).read_text())
    tables = read_tables(run_dir, manifest, config)
    scorer = make_scorer(_exact(config), tables, manifest.max_history)
    restore_best(run_dir, scorer)
    return Run(
        scorer=scorer,
        config=config,
        manifest=manifest,
        tables=tables,
        metrics=read_json(run_dir / METRICS_FILE, {}),
        info=info,
        data_dir=pathlib.Path(info.data_dir),
        run_dir=run_dir,
    )


def load_pretrainer(
    run_dir: pathlib.Path, data_dir: str | pathlib.Path | None = None
) -> PretrainedRun:
    """Loads the best checkpoint of a finished stage-1 run, in float32 as `load_scorer` does.

    Args:
      data_dir: where the data set is now, if not where the run found it.

    Raises:
      InputError: no finished stage-1 run there, or another data set.
    """
    check_finished(run_dir, schema.STAGE1)
    config, info = read_config(run_dir), read_info(run_dir)
    data_dir = pathlib.Path(data_dir or info.data_dir)
    manifest = schema.read_manifest(data_dir)
    if manifest.dataset_hash != info.dataset_hash:
        raise InputError(
            f"{data_dir} is the data set {manifest.dataset_hash}, {run_dir} was trained on "
            f"{info.dataset_hash}: give that one as --data_dir"
        )
    tables = read_tables(data_dir, manifest, config)
    model = make_pretrainer(_exact(config), tables, manifest.max_history)
    restore_best(run_dir, model)
    return PretrainedRun(model, config, tables, info, data_dir)


def _exact(config: configs.Config) -> configs.Config:
    """The same model, computing in float32 whatever it was trained in."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, precision="float32"))


def restore_best(run_dir: pathlib.Path, model: tf_keras.Model | tf.train.Checkpoint) -> None:
    """Puts the best checkpoint's weights into a model, or parts of it, with all variables made.

    Raises:
      InputError: there is none, it is damaged, or it is of another model.
    """
    path = tf.train.latest_checkpoint(str(run_dir / BEST))
    if path is None:
        raise InputError(f"{run_dir / BEST} holds no checkpoint: train again with --overwrite")
    try:
        status = tf.train.Checkpoint(model=model).restore(path)
        status.assert_existing_objects_matched().expect_partial()
    except (*UNREADABLE, AssertionError) as error:
        raise InputError(
            f"{path} does not load ({' '.join(str(error).split())[:200]}): it is damaged, or of "
            f"another model than {run_dir / CONFIG_FILE} describes; bring the file back, or train "
            "again with --overwrite"
        ) from error
