"""Stage 2: the click scorer, from stage 1's encoders or from scratch (Eq. 8 and 9)."""

import math
import pathlib

import numpy as np
import tensorflow as tf

from sitn_tf import checkpoints, data, losses, runs, schema, whole_files
from sitn_tf.config import Config, differences
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics, retrieval
from sitn_tf.evaluation.popularity import fit_and_predict, told_weight
from sitn_tf.evaluation.predictions import EVALUATION_BATCH, scoring_graph
from sitn_tf.item_tables import ItemTable
from sitn_tf.layers.contrast import InstanceToInstance, gather_instances
from sitn_tf.layers.encoder import instance
from sitn_tf.models.registry import handed_over
from sitn_tf.models.scorer import Scorer
from sitn_tf.models.sitn import Sitn
from sitn_tf.runs import NO_INIT
from sitn_tf.training import train_loop
from sitn_tf.training.stage import Stage, without


def run_stage2(
    config: Config,
    data_dir: pathlib.Path,
    run_dir: pathlib.Path,
    strategy: tf.distribute.Strategy,
    init: str,
    loop: train_loop.Loop | None = None,
) -> dict[str, float]:
    """Trains stage 2 into `run_dir` and returns the best epoch's metrics.

    Args:
      init: run directory of a finished stage 1, or "none".
      loop: how the run is kept and watched.

    Raises:
      InputError: the stage-1 run is not there, or does not fit.
    """
    if config.stage2.contrast_weight and not config.model.use_source:
        raise InputError(
            f"stage2.contrast_weight={config.stage2.contrast_weight} needs both histories",
            "give stage2.contrast_weight=0 or model.use_source=true",
        )
    lift = None
    if init != NO_INIT:
        check_fits(pathlib.Path(init), config, schema.read_manifest(data_dir))
        lift = held_out_lift(pathlib.Path(init))
    loop = loop or train_loop.Loop()
    stage = Stage(schema.STAGE2, config, data_dir, strategy)
    scorer: Scorer = stage.model
    log_q = None
    if config.stage2.log_q:
        log_q = tf.constant(sampling_log_probability(stage.manifest, stage.tables[schema.TARGET]))
    start = init
    if lift is not None and lift < config.stage2.min_lift:
        start = NO_INIT
        print(
            f"{init} found too little to transfer: the odds of its held-out retrieval are "
            f"{lift:.1f} times those of chance, stage2.min_lift is {config.stage2.min_lift:g}. "
            "Starting from scratch; to start from it all the same, into another directory: "
            f"init={init} and stage2.min_lift=0"
        )
    restored = restore_encoders(scorer, start)
    if config.stage2.encoders == "freeze" and not restored:
        print("warning: stage2.encoders=freeze: nothing is restored, so all is trained")
    stage.prepare(run_dir, start, loop.overwrite)
    if not (run_dir / runs.INITIALIZATION_FILE).is_file():
        describe_start(scorer, start, restored, lift, run_dir)
    if config.stage2.encoder_rate != 1.0:
        stage.optimizer.slow_down(restored, config.stage2.encoder_rate)
    i2i = InstanceToInstance(config.contrast)

    def stage2_losses(batch: data.Batch, step: tf.Tensor) -> train_loop.Losses:
        parts = scorer_losses(scorer, batch, log_q)
        if not config.stage2.contrast_weight:
            return parts
        contrast = mean_contrast_loss(scorer, i2i, batch)
        total = parts["loss"] + config.stage2.contrast_weight * contrast
        return {"click": parts["loss"], **parts, "loss": total, "i2i": contrast}

    validation, score = stage.validation(EVALUATION_BATCH), scoring_graph(scorer)

    def validate() -> dict[str, float]:
        scored = fit_and_predict(scorer, validation, score)
        found = metrics.click_metrics(scored.label, scored.probability, scored.request)
        return found | told_weight(scorer)

    frozen = restored if config.stage2.encoders == "freeze" else []
    task = train_loop.Task(
        losses=stage2_losses,
        variables=without(scorer.trainable_variables, frozen),
        validate=validate,
        objective="auc",
    )
    return train_loop.fit(run_dir, stage, task, loop)


def scorer_losses(
    scorer: Scorer, batch: data.Batch, log_q: tf.Tensor | None = None
) -> train_loop.Losses:
    """A replica's share of the loss; beside it its parts, if there is more than the click loss.

    Args:
      log_q: see `mean_click_loss`.
    """
    logits, auxiliary = scorer(batch, training=True, with_losses=True)
    click = mean_click_loss(logits, batch, log_q, softmax=scorer.ranks_candidates)
    if scorer.learns_source:
        asked = data.source_requests(batch)
        clicks = scorer(asked, training=True, domain=schema.SOURCE)
        of_source = mean_click_loss(
            clicks, asked, domain=schema.SOURCE, softmax=scorer.ranks_candidates
        )
        auxiliary = {"source_click": scorer.config.joint.source_weight * of_source, **auxiliary}
    if not auxiliary:
        return {"loss": click}
    return {"loss": tf.add_n([click, *auxiliary.values()]), "click": click, **auxiliary}


def mean_click_loss(
    logits: tf.Tensor,
    batch: data.Batch,
    log_q: tf.Tensor | None = None,
    domain: str = schema.TARGET,
    softmax: bool = False,
) -> tf.Tensor:
    """A replica's share of the mean cross-entropy (Eq. 9) over the global batch's candidates.

    Args:
      logits: `[B, C]` of the batch's candidates.
      log_q: `[R]` of the target items, see `sampling_log_probability`; no correction if None.
      domain: of the candidates.
      softmax: a softmax over each request's candidates instead, and the mean over requests that
        have a click.
    """
    candidates = batch[schema.CANDIDATES_OF_DOMAIN[domain].name]
    if log_q is not None:
        logits -= tf.gather(log_q, candidates)
    real = candidates != schema.PAD_ID
    labels = batch[schema.LABELS.name]
    if softmax:
        values = losses.softmax_loss(labels, logits, real)
        counted = tf.reduce_any(real & (labels > 0), axis=1)
    else:
        values, counted = losses.click_loss(labels, logits, real), real
    count = global_sum(tf.reduce_sum(tf.cast(counted, tf.float32)))
    return tf.math.divide_no_nan(tf.reduce_sum(values), count)


def mean_contrast_loss(scorer: Sitn, i2i: InstanceToInstance, batch: data.Batch) -> tf.Tensor:
    """A replica's share of the mean L_i2i (Eq. 3 and 4) over the global batch's requests.

    Requests of one user are no negatives of each other; those without both histories take
    no part.
    """
    unit = i2i.config.similarity == "cosine"
    encoded = [
        instance(
            scorer.items[domain], scorer.sequences[domain], batch[history.name], unit, training=True
        )
        for domain, history in schema.HISTORY_OF_DOMAIN.items()
    ]
    valid = data.has_both_histories(batch)
    rows = i2i(gather_instances(encoded, data.user_hash(batch), valid))
    weight = tf.cast(valid, rows.dtype)
    total = tf.reduce_sum(weight * rows)
    return tf.math.divide_no_nan(total, global_sum(tf.reduce_sum(weight)))


def sampling_log_probability(manifest: schema.Manifest, table: ItemTable) -> np.ndarray:
    """log(m q) of each target item, for m sampled negatives a click drawn from q.

    A candidate's odds of being the click are p(item | user) : m q(item), so that a scorer
    trained with logit - log(m q) learns log p(item | user) itself: the logQ correction (Bengio
    and Senecal, 2008; Yi et al., RecSys 2019) for Eq. 9.

    Returns:
      `[R]` float32; items that are never sampled count as the rarest that is.

    Raises:
      InputError: the data set's negatives are not sampled.
    """
    negatives = manifest.negatives
    if negatives.get("kind") != "sampled":
        raise InputError(
            f"stage2.log_q=True: the negatives of this data set are {negatives.get('kind')}, not "
            "sampled",
            "give stage2.log_q=false",
        )
    weight = np.maximum(table.count, 0).astype(np.float64) ** float(negatives["power"])
    weight[: schema.FIRST_ID] = 0.0
    q = weight / weight.sum()
    return np.log(float(negatives["per_click"]) * np.maximum(q, q[q > 0].min())).astype(np.float32)


def check_fits(stage1_dir: pathlib.Path, config: Config, manifest: schema.Manifest) -> None:
    """Raises InputError unless the stage-1 run has this data set and these encoders."""
    runs.check_finished(stage1_dir, schema.STAGE1)
    trained_on = runs.read_info(stage1_dir).dataset_hash
    if trained_on != manifest.dataset_hash:
        raise InputError(
            f"init={stage1_dir} was trained on the data set {trained_on}, this one is "
            f"{manifest.dataset_hash}",
            "train stage 1 on it, or give init=none",
        )
    theirs = runs.read_config(stage1_dir)
    settings = [name for names in handed_over(theirs, config).values() for name in names]
    changed = differences(theirs, config, within=settings)
    if changed:
        raise InputError(
            f"init={stage1_dir} has other encoders (there, here: {'; '.join(changed)})",
            "give the same preset and settings to both stages, or init=none",
        )


def restore_encoders(scorer: Scorer, init: str) -> list[tf.Variable]:
    """Puts what stage 1 trained into the scorer; returns these variables.

    Args:
      init: run directory of a finished stage 1, or "none".

    Raises:
      InputError: its checkpoint is damaged.
    """
    if init == NO_INIT:
        return []
    parts = handed_over(runs.read_config(pathlib.Path(init)), scorer.config)
    taken = {part: getattr(scorer, part) for part in parts}
    checkpoints.restore_best(pathlib.Path(init), tf.train.Checkpoint(**taken))
    return scorer.variables_of(parts)


def describe_start(
    scorer: Scorer,
    init: str,
    restored: list[tf.Variable],
    lift: float | None,
    run_dir: pathlib.Path,
) -> None:
    """Writes and says which variables are restored and which are fresh.

    Args:
      lift: of the stage 1 that was offered, None without one.
    """
    fresh = without(scorer.trainable_variables, restored)
    described = {
        "init": init,
        "lift": lift if lift is None or math.isfinite(lift) else str(lift),
        "restored": [f"{v.name} {list(v.shape)}" for v in restored],
        "fresh": [f"{v.name} {list(v.shape)}" for v in fresh],
    }
    whole_files.write_json(run_dir / runs.INITIALIZATION_FILE, described)
    print(
        f"initialised from {'scratch' if init == NO_INIT else init}: {len(restored)} variables "
        f"restored, {len(fresh)} fresh ({run_dir / runs.INITIALIZATION_FILE})"
    )


def held_out_lift(stage1_dir: pathlib.Path) -> float:
    """`retrieval.lift` of a finished stage-1 run's best epoch."""
    measured = runs.read_json(stage1_dir / runs.METRICS_FILE, None)[schema.VALIDATION]
    return retrieval.lift(measured["recall"], measured["chance"])
