"""What came of a fault that a drill tried."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A row of the table.

    Attributes:
      fault: what was done to what: "kill -9: sitn_tf.train --stage=1".
      tried: how often.
      lost: of each time that was not survived what was lost, and the command that repeats it.
      skipped: why it could not be tried here; empty where it was.
    """

    fault: str
    tried: int
    lost: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def survived(self) -> int:
        """How often nothing was lost."""
        return self.tried - len(self.lost)
