"""Where a training run is, kept in its checkpoints."""

import dataclasses
import json
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(eq=False)
class Progress(tf.train.experimental.PythonState):
    """Where a run is; saved within each checkpoint, so that it always fits the weights.

    Attributes:
      epoch: the one in progress; 0 for judging the untrained model.
      steps: of all epochs.
      batches: of this epoch, as all that follow.
      records: in them.
      seconds: spent on them.
      totals: sums of the losses over them.
      history: the entries of earlier epochs.
    """

    epoch: int
    steps: int = 0
    batches: int = 0
    records: int = 0
    seconds: float = 0.0
    totals: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def serialize(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    def deserialize(self, string_value: str) -> None:
        for name, value in json.loads(string_value).items():
            setattr(self, name, value)

    def add(self, records: int, losses: dict[str, float]) -> None:
        """Counts one step."""
        self.steps += 1
        self.batches += 1
        self.records += records
        for name, value in losses.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def end_epoch(self, entry: dict[str, Any]) -> None:
        self.history.append(entry)
        self.epoch += 1
        self.batches = self.records = 0
        self.seconds = 0.0
        self.totals = {}
