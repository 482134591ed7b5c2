"""What an export may choose. No TensorFlow here, so that commands can speak before it loads."""

import dataclasses
import pathlib
from typing import Literal

from export import calibration as calibrations
from sitn_tf.errors import InputError

TableKind = Literal["float32", "float16", "int8"]
TABLE_KINDS: tuple[TableKind, ...] = ("float32", "float16", "int8")

Outputs = Literal["both", "ctr"]
OUTPUTS: tuple[Outputs, ...] = ("both", "ctr")

DEFAULT_MAX_CANDIDATES = 2000


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How to export.

    Attributes:
      tables: storage of item vectors.
      calibrate: step fitted on the validation split.
      undo_sampling: add the log of the manifest's negative-sampling rate.
      max_candidates: longest row of candidates answered.
      outputs: ctr and logit, or ctr alone.
      max_drift: bound on the mean absolute change of log-odds on the newest version's
        golden requests.
      allow_drift: no bound.
      data_dir: data set of the run; None looks where the run found it.
      goldens: number of golden requests.
      force: write a version even if the newest one is the same.
    """

    tables: TableKind = "float32"
    calibrate: calibrations.Kind = "none"
    undo_sampling: bool = True
    max_candidates: int = DEFAULT_MAX_CANDIDATES
    outputs: Outputs = "both"
    max_drift: float = 0.5
    allow_drift: bool = False
    data_dir: pathlib.Path | None = None
    goldens: int = 1024
    force: bool = False

    def __post_init__(self) -> None:
        _one_of("tables", self.tables, TABLE_KINDS)
        _one_of("outputs", self.outputs, OUTPUTS)
        _one_of("calibrate", self.calibrate, calibrations.KINDS)
        if not self.max_drift >= 0:
            raise InputError(
                f"max_drift={self.max_drift} is not a number of at least 0",
                "to export whatever the drift, give allow_drift=True",
            )


def _one_of(field: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise InputError(f"{field}={value} is not one of: {', '.join(accepted)}")
