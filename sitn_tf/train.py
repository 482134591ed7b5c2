"""Trains one stage of SITN: a data set directory → a run directory.

    python -m sitn_tf.train --stage=1 --data_dir=DATASET --workdir=RUN
    python -m sitn_tf.train --stage=2 --data_dir=DATASET --workdir=RUN

Stage 1 writes RUN/stage1; stage 2 starts from it and writes RUN/stage2. The same command
continues an interrupted run, to the weights of an uninterrupted one. SIGTERM and Ctrl-C save a
checkpoint after the current step and exit with status 75. `--set section.field=value` changes a
field of sitn_tf/sections.py.

TF_CONFIG with several under "worker" trains on all of them, each given this command; when one ends
all do. With "chief", "ps" and "worker" tables lie on the parameter servers, sharded by rows: the
chief trains, the others, given the same command, serve it until it ends.
"""

import dataclasses
import pathlib
from typing import TYPE_CHECKING

from absl import flags

from sitn_tf import cli, config, locks, quiet, runs, schema
from sitn_tf.errors import InputError
from sitn_tf.evaluation import retrieval

if TYPE_CHECKING:
    import tensorflow as tf

    from sitn_tf.training.train_loop import Loop

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "stage", None, "1: encoders, by contrast; 2: the click scorer.", flag_values=FLAGS
)
flags.DEFINE_string("data_dir", None, "Data set directory.", flag_values=FLAGS)
flags.DEFINE_string("workdir", None, "Parent of stage1/, stage2/.", flag_values=FLAGS)
_PRESET = flags.DEFINE_string(
    "preset", "default", f"Configuration: {', '.join(config.PRESETS)}.", flag_values=FLAGS
)
_SET = flags.DEFINE_multi_string("set", [], "section.field=value", flag_values=FLAGS)
_SEED = flags.DEFINE_integer("seed", None, "Same as --set seed=...", flag_values=FLAGS)
_INIT = flags.DEFINE_string(
    "init", None, "Stage 2: a stage-1 run directory, or none.", flag_values=FLAGS
)
_REPLICAS = flags.DEFINE_integer(
    "replicas", 0, "0 for all GPUs, or one on the CPU.", flag_values=FLAGS, lower_bound=0
)
_OVERWRITE = flags.DEFINE_boolean(
    "overwrite", False, "Remove a run that is there.", flag_values=FLAGS
)
_DRY_RUN = flags.DEFINE_boolean(
    "dry_run", False, "Print variables, memory and steps; write nothing.", flag_values=FLAGS
)
_CHECKPOINT_STEPS = flags.DEFINE_integer(
    "checkpoint_steps", 0, "Steps between checkpoints in an epoch; 0: none.", 0, flag_values=FLAGS
)
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes", 10.0, "Minutes between checkpoints; 0: none.", 0.0, flag_values=FLAGS
)
_LOG_STEPS = flags.DEFINE_integer(
    "log_steps", 50, "Steps between TensorBoard's points.", 1, flag_values=FLAGS
)
_SKIP_CORRUPT = flags.DEFINE_integer(
    "skip_corrupt", 0, "Records of damaged shards to do without.", 0, flag_values=FLAGS
)


def main(_: list[str]) -> int | None:
    """Checks the flags, trains, and says what was written and what to run next."""
    number, data_dir = cli.require(FLAGS, "stage"), cli.require(FLAGS, "data_dir")
    workdir = pathlib.Path(cli.require(FLAGS, "workdir"))
    if number not in ("1", "2"):
        raise InputError(f"--stage={number} is not one of: 1, 2")
    stage = f"stage{number}"
    if stage == schema.STAGE1 and _INIT.value is not None:
        raise InputError(f"--init={_INIT.value} is for --stage=2 only")
    settings = config.override(config.preset(_PRESET.value), _SET.value)
    if _SEED.value is not None:
        settings = dataclasses.replace(settings, seed=_SEED.value)
    schema.read_manifest(data_dir)
    run_dir = workdir / stage
    quiet.import_tensorflow()
    from sitn_tf.models.registry import PRETRAINERS

    own_stage1 = settings.model.name in PRETRAINERS
    init = _INIT.value or (str(workdir / schema.STAGE1) if own_stage1 else runs.NO_INIT)
    if _DRY_RUN.value:
        from sitn_tf.training import dry_run

        print(dry_run.describe(settings, stage, pathlib.Path(data_dir), init))
        return None
    from sitn_tf.distributed import parameter_servers

    own = parameter_servers.member()
    if own is not None and own.job != parameter_servers.CHIEF:
        parameter_servers.serve(own)
        return None
    from sitn_tf.training import signals, train_loop

    loop = train_loop.Loop(
        checkpoint_steps=_CHECKPOINT_STEPS.value,
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
        log_steps=_LOG_STEPS.value,
        overwrite=_OVERWRITE.value,
        skip_corrupt=_SKIP_CORRUPT.value,
    )
    finished = runs.is_finished(run_dir) and not loop.overwrite
    try:
        best = train(stage, settings, data_dir, run_dir, init, loop, _REPLICAS.value)
    except signals.StoppedError:
        print(f"stopped; {run_dir} is saved: give the same command again to continue")
        return signals.STOPPED_STATUS
    if finished:
        said = f"{run_dir} is finished already (--overwrite trains it again)"
    else:
        said = f"wrote {run_dir}"
    _conclude(said, settings, stage, data_dir, workdir, best)
    return None


def train(
    stage: str,
    settings: config.Config,
    data_dir: str | pathlib.Path,
    run_dir: str | pathlib.Path,
    init: str | pathlib.Path = runs.NO_INIT,
    loop: "Loop | None" = None,
    replicas: int = 0,
) -> dict[str, float]:
    """Trains a stage on this machine's devices, or with TF_CONFIG's workers and servers.

    Args:
      stage: schema.STAGE1 or schema.STAGE2.
      run_dir: of the stage; where a run was interrupted, it is continued.
      init: of stage 2: the run directory of a finished stage 1, or "none".
      loop: how the run is kept and watched.
      replicas: as many devices; 0 for all GPUs, or one on the CPU.

    Returns:
      The best epoch's metrics.

    Raises:
      InputError: a data set, a stage 1 or a run in `run_dir` that does not fit; another process
        trains there; a parameter server or another worker ended, or this process is no chief.
      StoppedError: SIGTERM or SIGINT came; the run is saved.
    """
    import tensorflow as tf

    from sitn_tf.distributed import parameter_servers
    from sitn_tf.distributed import replicas as devices

    own = parameter_servers.member()
    try:
        strategy = devices.make_strategy(replicas)
        if own is not None:
            # Servers have working directories of their own.
            run_dir = pathlib.Path(run_dir).absolute()
            parameter_servers.check_shared(own, run_dir.parent)
        return _train_on(strategy, stage, settings, data_dir, run_dir, init, loop)
    except tf.errors.OpError as error:
        lost = parameter_servers.lost_server(own, error) if own else devices.lost_worker(error)
        if lost is None:
            raise
        raise lost from error


def _train_on(
    strategy: "tf.distribute.Strategy",
    stage: str,
    settings: config.Config,
    data_dir: str | pathlib.Path,
    run_dir: str | pathlib.Path,
    init: str | pathlib.Path,
    loop: "Loop | None",
) -> dict[str, float]:
    import tf_keras

    from sitn_tf.distributed.replicas import is_chief

    data_dir, run_dir = pathlib.Path(data_dir), pathlib.Path(run_dir)
    tf_keras.utils.set_random_seed(settings.seed)
    if not is_chief(strategy):
        run_dir = runs.shadow(run_dir)
    with locks.held(locks.beside(run_dir), str(run_dir)):
        return _train(stage, settings, data_dir, run_dir, init, strategy, loop)


def _train(
    stage: str,
    settings: config.Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    init: str | pathlib.Path,
    strategy: "tf.distribute.Strategy",
    loop: "Loop | None",
) -> dict[str, float]:
    from sitn_tf import shards
    from sitn_tf.training import race, stage1

    with shards.named(data_dir, (stage, schema.SOURCE_REQUESTS)):
        if stage == schema.STAGE1:
            return stage1.run_stage1(settings, data_dir, run_dir, strategy, loop)
        if init != runs.NO_INIT:
            init = pathlib.Path(init).resolve()
        return race.run(settings, data_dir, run_dir, strategy, str(init), loop)


def _conclude(
    said: str,
    settings: config.Config,
    stage: str,
    data_dir: str,
    workdir: pathlib.Path,
    best: dict[str, float],
) -> None:
    if stage == schema.STAGE1:
        lift = retrieval.lift(best["recall"], best["chance"])
        judged = (
            f"held-out rank gain {best['rank_gain']:.4f}, recall@10 {best['recall']:.4f} (chance "
            f"{best['chance']:.4f}, {lift:.1f} times its odds)"
        )
        races = settings.stage2.race_steps
        if lift < settings.stage2.min_lift:
            judged += (
                f"; below stage2.min_lift={settings.stage2.min_lift:g}, so stage 2 will start "
                f"from scratch{', with or without the source history' if races else ''}"
            )
        elif races:
            judged += "; a race in stage 2 will show whether to start from it"
        changed = [f"--preset={_PRESET.value}"] if _PRESET.value != "default" else []
        changed += [f"--seed={_SEED.value}"] if _SEED.value is not None else []
        changed += [f"--replicas={_REPLICAS.value}"] if _REPLICAS.value else []
        changed += [f"--set={setting}" for setting in _SET.value]
        where = f"--data_dir={data_dir}", f"--workdir={workdir}"
        following = cli.shell("sitn_tf.train", "--stage=2", *where, *changed)
    else:
        judged = f"validation AUC {best['auc']:.4f}"
        following = cli.shell("sitn_tf.evaluate", f"--run_dir={workdir / stage}")
    print(f"{said}: best epoch {best['epoch']}, {judged}\nnext: {following}")


if __name__ == "__main__":
    cli.run(main, FLAGS)
