"""Stage 2: the click scorer, from stage 1's encoders or from scratch (Eq. 8 and 9)."""

import math
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from sitn_tf import checkpoints, data, losses, runs, schema, whole_files
from sitn_tf.config import Config, differences, has_stage1
from sitn_tf.distributed.replicas import global_sum
from sitn_tf.distributed.tables import may_be_cut, rows_of
from sitn_tf.errors import InputError
from sitn_tf.evaluation import metrics, retrieval
from sitn_tf.evaluation.kept_predictions import Predictions
from sitn_tf.evaluation.popularity import fit_and_predict, told_weight
from sitn_tf.evaluation.predictions import EVALUATION_BATCH, scoring_graph
from sitn_tf.item_tables import ItemTable
from sitn_tf.models.pretrainer import learned_ids
from sitn_tf.models.registry import handed_over
from sitn_tf.models.scorer import Scorer
from sitn_tf.models.sitn import KEPT, Sitn
from sitn_tf.optimizers.schedules import WarmUpThenDecay
from sitn_tf.runs import NO_INIT
from sitn_tf.sections import KEPT_CONTRAST
from sitn_tf.training import steps, train_loop
from sitn_tf.training.stage import Stage, without
from sitn_tf.training.stage1 import learned_nothing


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
    offer = examine(config, data_dir, init)
    loop = loop or train_loop.Loop()
    stage = Stage(schema.STAGE2, config, data_dir, strategy, loop.skip_corrupt)
    scorer: Scorer = stage.model
    log_q = None
    if config.stage2.log_q:
        table = sampling_log_probability(stage.manifest, stage.tables[schema.TARGET])
        with strategy.scope(), may_be_cut():
            log_q = tf.Variable(table, trainable=False, name="log_q")
    start = init if offer.useful else NO_INIT
    if isinstance(scorer, Sitn):
        scorer.contrast_weight = kept_contrast(config, start)
    if not offer.useful:
        print(
            f"{offer.too_little(config)}. Starting from scratch; to start from it all the same, "
            f"into another directory: init={init} and stage2.min_lift=0"
        )
    handed = restore_encoders(scorer, start)
    if config.stage2.encoders == "freeze" and not handed.learned:
        print("warning: stage2.encoders=freeze: nothing is restored, so all is trained")
    stage.prepare(run_dir, start, loop.overwrite)
    if not (run_dir / runs.INITIALIZATION_FILE).is_file():
        describe_start(scorer, start, handed, offer.lift, run_dir)
    if config.stage2.encoder_rate != 1.0:
        stage.optimizer.slow_down(handed.learned, config.stage2.encoder_rate)

    def stage2_losses(batch: data.Batch, step: tf.Tensor) -> steps.Losses:
        return scorer_losses(scorer, batch, log_q, left_of_contrast(config, step))

    validation, score = stage.validation(EVALUATION_BATCH), scoring_graph(scorer)

    def validate() -> dict[str, float]:
        return measured(fit_and_predict(scorer, validation, score)) | told_weight(scorer)

    frozen = handed.learned if config.stage2.encoders == "freeze" else []
    task = train_loop.Task(
        losses=stage2_losses,
        variables=without(scorer.trainable_variables, frozen),
        validate=validate,
        objective="auc",
        undefined="it needs both clicked and unclicked candidates; check label_field, or build the "
        "data set with a larger validation_fraction",
    )
    return train_loop.fit(run_dir, stage, task, loop)


def measured(scored: Predictions) -> dict[str, float]:
    """`metrics.click_metrics` of the scored validation split.

    Raises:
      InputError: a logit is not a number. The loss of each step was one: it is the last step that
        spoilt the weights, and ranks of NaN would be taken for an AUC.
    """
    if bad := int(np.isnan(scored.logit).sum()):
        raise InputError(
            f"{bad:,} of {len(scored.logit):,} validation logits are not a number, so weights are "
            "not",
            "lower the learning rate (stage2.learning_rate=...)",
        )
    return metrics.click_metrics(scored.label, scored.probability, scored.request)


def kept_contrast(config: Config, start: str) -> float:
    """The weight of L_i2i beside the click loss.

    Args:
      start: what stage 2 starts from, a stage 1 or "none".
    """
    if config.stage2.contrast_weight is not None:
        return config.stage2.contrast_weight
    both = config.model.use_source and has_stage1(config.model.name)
    return KEPT_CONTRAST if both and start != NO_INIT else 0.0


def left_of_contrast(config: Config, step: tf.Tensor) -> tf.Tensor:
    """max(1 - t / d, 0) of the weight of L_i2i at step t = 0, 1, ..., or all of it without d.

    d is `stage2.contrast_decay_steps`.
    """
    steps = config.stage2.contrast_decay_steps
    return WarmUpThenDecay(1.0, "linear" if steps else "constant", decay_steps=steps)(step)


def scorer_losses(
    scorer: Scorer,
    batch: data.Batch,
    log_q: tf.Variable | tf.Tensor | None = None,
    contrast_left: tf.Tensor | float = 1.0,
) -> steps.Losses:
    """A replica's share of the loss; beside it its parts, if there is more than the click loss.

    Args:
      log_q: see `mean_click_loss`.
      contrast_left: what is left of the weight of L_i2i.
    """
    logits, auxiliary = scorer(batch, training=True, with_losses=True)
    if KEPT in auxiliary:
        auxiliary = {**auxiliary, KEPT: contrast_left * auxiliary[KEPT]}
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
    log_q: tf.Variable | tf.Tensor | None = None,
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
        logits -= rows_of(log_q, candidates)
    real = candidates != schema.PAD_ID
    labels = batch[schema.LABELS.name]
    if softmax:
        values = losses.softmax_loss(labels, logits, real)
        counted = tf.reduce_any(real & (labels > 0), axis=1)
    else:
        values, counted = losses.click_loss(labels, logits, real), real
    count = global_sum(tf.reduce_sum(tf.cast(counted, tf.float32)))
    return tf.math.divide_no_nan(tf.reduce_sum(values), count)


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


class Offer(NamedTuple):
    """A stage 1 that stage 2 may start from.

    Attributes:
      init: its run directory, or "none".
      lift: of its held-out retrieval (`retrieval.lift`); None without one.
      useful: whether the lift is enough for `stage2.min_lift`, or there is nothing offered.
    """

    init: str
    lift: float | None = None
    useful: bool = True

    def too_little(self, config: Config) -> str:
        """What to say where it is not useful."""
        return (
            f"{self.init} found too little to transfer: the odds of its held-out retrieval are "
            f"{self.lift:.1f} times those of chance, stage2.min_lift is {config.stage2.min_lift:g}"
        )


def examine(config: Config, data_dir: pathlib.Path, init: str) -> Offer:
    """Is there something to start from? Warns of a stage 1 that has learned nothing.

    Raises:
      InputError: the stage-1 run is not there, or does not fit.
    """
    if init == NO_INIT:
        return Offer(init)
    stage1_dir = pathlib.Path(init)
    check_fits(stage1_dir, config, schema.read_manifest(data_dir))
    best = runs.read_json(stage1_dir / runs.METRICS_FILE, None)[schema.VALIDATION]
    if not best["epoch"]:
        print(f"warning: {learned_nothing(stage1_dir)}", flush=True)
    lift = retrieval.lift(best["recall"], best["chance"])
    # NaN, where nothing could be judged, is no reason to refuse it.
    return Offer(init, lift, not lift < config.stage2.min_lift)


class HandedOver(NamedTuple):
    """The variables that a scorer has from a stage 1, which may have left tables of ids alone.

    Attributes:
      learned: trained there; what `stage2.encoders` and `.encoder_rate` are about.
      learned_in_part: tables of ids, trained for items of which nothing else is known.
      untrained: tables of ids that are as they began.
    """

    learned: list[tf.Variable]
    learned_in_part: list[tf.Variable]
    untrained: list[tf.Variable]


def handed_over_variables(scorer: Scorer, stage1: Config) -> HandedOver:
    """What a scorer has from a stage 1 of this configuration."""
    ids: dict[str, list[tf.Variable]] = {"all": [], "undescribed": [], "none": []}
    for items in scorer.items.values():
        ids[learned_ids(items.table, stage1.stage1)] += items.id_variables
    in_part, untrained = ids["undescribed"], ids["none"]
    taken = scorer.variables_of(handed_over(stage1, scorer.config))
    return HandedOver(without(taken, [*in_part, *untrained]), in_part, untrained)


def restore_encoders(scorer: Scorer, init: str) -> HandedOver:
    """Puts what stage 1 trained into the scorer.

    Args:
      init: run directory of a finished stage 1, or "none".

    Raises:
      InputError: its checkpoint is damaged.
    """
    if init == NO_INIT:
        return HandedOver([], [], [])
    theirs = runs.read_config(pathlib.Path(init))
    taken = {part: getattr(scorer, part) for part in handed_over(theirs, scorer.config)}
    checkpoints.restore_best(pathlib.Path(init), tf.train.Checkpoint(**taken))
    return handed_over_variables(scorer, theirs)


def lift_as_json(lift: float | None) -> float | str | None:
    """A lift as JSON can say it, which knows no infinity."""
    return lift if lift is None or math.isfinite(lift) else str(lift)


def describe_start(
    scorer: Scorer,
    init: str,
    handed: HandedOver,
    lift: float | None,
    run_dir: pathlib.Path,
) -> None:
    """Writes and says which variables are restored, whole or in part, and which are not.

    Args:
      lift: of the stage 1 that was offered, None without one.
    """
    started = {
        "restored": handed.learned,
        "restored_in_part": handed.learned_in_part,
        "untrained": handed.untrained,
        "fresh": without(scorer.trainable_variables, [v for some in handed for v in some]),
    }
    described = {
        "init": init,
        "lift": lift_as_json(lift),
        **{how: [f"{v.name} {list(v.shape)}" for v in some] for how, some in started.items()},
    }
    whole_files.write_json(run_dir / runs.INITIALIZATION_FILE, described)
    of_ids = (
        (handed.learned_in_part, "tables of ids restored for items known by nothing else"),
        (handed.untrained, "tables of ids that stage 1 left as they began"),
    )
    print(
        f"initialised from {'scratch' if init == NO_INIT else init}: {len(handed.learned)} "
        "variables restored, "
        + "".join(f"{len(some)} {what}, " for some, what in of_ids if some)
        + f"{len(started['fresh'])} fresh ({run_dir / runs.INITIALIZATION_FILE})"
    )
