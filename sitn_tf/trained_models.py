"""Finished runs with their models loaded: a run directory → a scorer or a pre-trainer."""

import dataclasses
import pathlib
from typing import Any

from sitn_tf import config as configs
from sitn_tf import runs, schema
from sitn_tf.checkpoints import restore_best
from sitn_tf.item_tables import ItemTable
from sitn_tf.models.pretrainer import Pretrainer
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.models.scorer import Scorer


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished stage-2 run, loaded."""

    scorer: Scorer
    config: configs.Config
    manifest: schema.Manifest
    tables: dict[str, ItemTable]
    metrics: dict[str, Any]
    info: runs.RunInfo
    data_dir: pathlib.Path
    run_dir: pathlib.Path


@dataclasses.dataclass(frozen=True)
class PretrainedRun:
    """A finished stage-1 run with its model loaded."""

    model: Pretrainer
    config: configs.Config
    tables: dict[str, ItemTable]
    info: runs.RunInfo
    data_dir: pathlib.Path
    run_dir: pathlib.Path


def load_scorer(run_dir: str | pathlib.Path) -> Run:
    """Loads the best checkpoint of a finished stage-2 run; needs no data set.

    The scorer computes in float32, as its weights are, whatever it was trained in.

    Raises:
      InputError: no finished stage-2 run there.
    """
    run_dir = pathlib.Path(run_dir)
    runs.check_finished(run_dir, schema.STAGE2)
    config, info = runs.read_config(run_dir), runs.read_info(run_dir)
    manifest = runs.read_manifest(run_dir)
    tables = runs.read_tables(run_dir, manifest, config)
    scorer = make_scorer(_exact(config), tables, manifest.max_history)
    restore_best(run_dir, scorer)
    return Run(
        scorer=scorer,
        config=config,
        manifest=manifest,
        tables=tables,
        metrics=runs.read_json(run_dir / runs.METRICS_FILE, {}),
        info=info,
        data_dir=pathlib.Path(info.data_dir),
        run_dir=run_dir,
    )


def load_pretrainer(
    run_dir: str | pathlib.Path, data_dir: str | pathlib.Path | None = None
) -> PretrainedRun:
    """Loads the best checkpoint of a finished stage-1 run, in float32 as `load_scorer` does.

    Args:
      data_dir: where the data set is now, if not where the run found it.

    Raises:
      InputError: no finished stage-1 run there, or another data set.
    """
    run_dir = pathlib.Path(run_dir)
    runs.check_finished(run_dir, schema.STAGE1)
    config, info = runs.read_config(run_dir), runs.read_info(run_dir)
    data_dir = pathlib.Path(data_dir or info.data_dir)
    manifest = runs.read_its_manifest(run_dir, data_dir)
    tables = runs.read_tables(data_dir, manifest, config)
    model = make_pretrainer(_exact(config), tables, manifest.max_history)
    restore_best(run_dir, model)
    return PretrainedRun(model, config, tables, info, data_dir, run_dir)


def _exact(config: configs.Config) -> configs.Config:
    """The same model, computing in float32 whatever it was trained in."""
    return dataclasses.replace(config, model=dataclasses.replace(config.model, precision="float32"))
