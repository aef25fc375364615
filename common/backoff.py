"""Growing pauses between attempts, spread at random so that many do not come back at once."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait after so many failures."""

    first_seconds: float = 0.1
    """The pause after the first failure."""
    longest_seconds: float = 5.0
    """No pause is longer."""
    factor: float = 2.0
    """Each pause is so many times the one before."""
    spread: float = 0.2
    """Share of the pause that is left to chance, to either side; zero for none."""

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after `failures` (1, 2 …) in a row."""
        # The exponent is bounded, or a day of failures would overflow a float.
        grown = self.first_seconds * self.factor ** min(max(failures, 1) - 1, 64)
        chance = 1 + self.spread * (2 * random.random() - 1)  # noqa: S311 - no secret
        return min(grown, self.longest_seconds) * chance
