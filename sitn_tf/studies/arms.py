"""An arm of a study: named settings, trained over seeds."""

import dataclasses
from collections.abc import Sequence

from sitn_tf.sections import Stage2Config


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of a study.

    Attributes:
      settings: `section.field=value`, for both stages.
      pretrain: whether there is a stage 1.
    """

    settings: tuple[str, ...] = ()
    pretrain: bool = True


SCRATCH = Arm(pretrain=False)
AS_IT_IS = ("stage2.min_lift=0", "stage2.race_steps=0")
"""Settings of every arm that has not others: a study is to say what stage 1 is worth, also where it
found little to transfer and another start would do better.
"""
RACE = f"stage2.race_steps={Stage2Config().race_steps}"
"""Setting of the arms that start as `sitn_tf.train` does, from the best of their starts."""


def told_races(raced: Sequence[str], arms: Sequence[str]) -> str:
    """A sentence on arms whose starts race; none where there are no such arms.

    Args:
      raced: their names, among all of `arms`.
    """
    if not raced:
        return ""
    others = "; a run of another arm is trained once" if len(raced) < len(arms) else ""
    told = ", ".join(raced)
    return f"Each run of {told} keeps the best of up to three starts by validation AUC{others}."
