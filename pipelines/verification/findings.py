"""What an examination looked at and what it found wrong."""

import collections
import dataclasses
from collections.abc import Callable

import numpy as np

_SHOWN = 5


@dataclasses.dataclass
class Findings:
    """Checks that were made, how many things each looked at, and what was wrong.

    Attributes:
      looked_at: things by check.
      wrong: by check, what the first few things are that were wrong.
      wrong_things: how many there were.
    """

    looked_at: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    wrong: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    wrong_things: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def check(self, what: str, fine: bool, describe: Callable[[], str] | str) -> None:
        """Notes that a thing was looked at and, where not fine, what it is."""
        self.looked_at[what] += 1
        if fine:
            return
        self.wrong_things[what] += 1
        shown = self.wrong.setdefault(what, [])
        if len(shown) < _SHOWN:
            shown.append(describe if isinstance(describe, str) else describe())

    def check_all(self, what: str, fine: np.ndarray, describe: Callable[[int], str]) -> None:
        """As `check` for many things: fine bool [n], `describe` tells what the i-th is."""
        bad = np.flatnonzero(~fine)
        self.looked_at[what] += len(fine)
        if len(bad):
            self.wrong_things[what] += len(bad)
            shown = self.wrong.setdefault(what, [])
            shown += [describe(int(i)) for i in bad[: _SHOWN - len(shown)]]

    def table(self) -> str:
        rows = []
        for what, count in self.looked_at.items():
            shown = self.wrong.get(what, [])
            rows.append(f"{'WRONG' if shown else 'ok':6} {what:60} {count:>12,}")
            rows += [f"         {text}" for text in shown]
            if more := self.wrong_things[what] - len(shown):
                rows.append(f"         and {more:,} more")
        return "\n".join(rows)
