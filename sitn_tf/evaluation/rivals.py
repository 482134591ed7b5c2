"""Runs of several models → what SITN has to beat, picked by validation AUC.

Its rivals are the best model that sees the target domain alone, the best baseline, which is any
other model, and SITN itself without stage 1. What is picked by the split that it is then compared
on would look better than it is.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from sitn_tf import runs, schema
from sitn_tf.config import Config
from sitn_tf.errors import InputError

WITHOUT_STAGE1 = "itself without stage 1"
SINGLE_DOMAIN = "the best single-domain model"
BASELINE = "the best baseline"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model that was trained with one seed or several.

    Attributes:
      name: for people.
      run_dirs: of its finished stage-2 runs, by seed.
      config: that was asked for, of the first seed.
      offered: whether there was a stage 1 to start from, wherever it then started.
      validation_auc: the mean over seeds.
    """

    name: str
    run_dirs: Mapping[int, pathlib.Path]
    config: Config
    offered: bool
    validation_auc: float


def read_trained(name: str, run_dirs: Sequence[pathlib.Path]) -> Trained:
    """What finished runs of the same settings say of themselves.

    Raises:
      InputError: one is damaged.
    """
    configs = [runs.read_asked(run_dir) for run_dir in run_dirs]
    told = [runs.read_json(run_dir / runs.METRICS_FILE, {}) for run_dir in run_dirs]
    return Trained(
        name=name,
        run_dirs={config.seed: run_dir for config, run_dir in zip(configs, run_dirs, strict=True)},
        config=configs[0],
        offered=runs.was_offered_stage1(run_dirs[0]),
        validation_auc=float(np.mean([of.get(schema.VALIDATION, {}).get("auc", np.nan)
                                      for of in told])),
    )  # fmt: skip


def of_study(study_dir: pathlib.Path) -> list[Trained]:
    """The arms of a study (studies/runs.py) with their finished runs, by name.

    Of several shares of the labels (studies/learning_curve.py) those with the largest.

    Raises:
      InputError: there is none.
    """
    finished: dict[str, list[pathlib.Path]] = {}
    for run_dir in sorted(study_dir.glob(f"*/*/{schema.STAGE2}")):
        if run_dir.parent.name.isdecimal() and runs.is_finished(run_dir):
            finished.setdefault(run_dir.parent.parent.name, []).append(run_dir)
    if not finished:
        raise InputError(
            f"study_dir={study_dir} holds no finished run",
            "give the workdir of python -m sitn_tf.experiments",
        )
    trained = [read_trained(arm, run_dirs) for arm, run_dirs in finished.items()]
    largest = max(one.config.stage2.label_share for one in trained)
    return [one for one in trained if one.config.stage2.label_share == largest]


def best(trained: Sequence[Trained]) -> Trained | None:
    """Of the highest validation AUC, of equal ones the first; None where none is known."""
    known = [one for one in trained if not np.isnan(one.validation_auc)]
    return max(known, key=lambda one: one.validation_auc) if known else None


def judged_of(trained: Sequence[Trained]) -> Trained:
    """SITN's best arm with a stage 1.

    Raises:
      InputError: there is none.
    """
    found = best([one for one in trained if one.config.model.name == "sitn" and one.offered])
    if found is None:
        raise InputError(
            f"none of {', '.join(one.name for one in trained)} is SITN after a stage 1",
            "name the run that is judged and those it is compared with by --run_dir",
        )
    return found


def rivals(judged: Trained, others: Sequence[Trained]) -> dict[str, Trained]:
    """By role, those of the roles that some are there for; one may have two."""
    model = judged.config.model.name
    by_role = {
        WITHOUT_STAGE1: [
            one for one in others if judged.offered and not one.offered
            and one.config.model.name == model and one.config.model.use_source
        ],
        SINGLE_DOMAIN: [one for one in others if not one.config.model.use_source],
        BASELINE: [one for one in others if one.config.model.name != model],
    }  # fmt: skip
    picked = {role: best(of_role) for role, of_role in by_role.items()}
    return {role: one for role, one in picked.items() if one is not None}


def shared_seeds(trained: Sequence[Trained]) -> list[int]:
    """Those that all have, ascending.

    Raises:
      InputError: there is none.
    """
    seeds = sorted(set.intersection(*({*one.run_dirs} for one in trained)))
    if not seeds:
        raise InputError(
            f"{', '.join(one.name for one in trained)} have no seed in common",
            "train each with the same seeds",
        )
    return seeds
