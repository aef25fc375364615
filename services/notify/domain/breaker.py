"""One address's breaker: a server that is down is left alone, and asked now and then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAILURES_MAX: Final = 5
"""So many in a row open it: fewer would punish one bad answer, more would hammer a dead server."""

_FIRST_SECONDS: Final = 5.0
# Shorter than the later steps of the schedule, so that a breaker delays no attempt by much.
_LONGEST_SECONDS: Final = 60.0
_DOUBLINGS_MAX: Final = 8


@dataclass(slots=True)
class Breaker:
    """Closed: everything goes. Open: nothing. Half-open, once the pause is over: one at a time.

    Instants are seconds of a clock that never runs backwards.
    """

    failures: int = 0
    """In a row."""
    pauses: int = 0
    """In a row, since the last success."""
    open_until: float | None = None
    """None while it is closed."""

    def room(self, now: float, most: int) -> int:
        """Return how many attempts may be under way, `most` while it is closed."""
        if self.open_until is None:
            return most
        return 0 if now < self.open_until else 1

    def note_success(self) -> None:
        """The server answered as one that is up."""
        self.failures = self.pauses = 0
        self.open_until = None

    def note_failure(self, now: float) -> None:
        """The server did not answer, or as one that is not up."""
        self.failures += 1
        if self.open_until is not None and now < self.open_until:
            return  # was under way when it opened
        if self.failures >= FAILURES_MAX:
            doublings = min(self.pauses, _DOUBLINGS_MAX)
            self.open_until = now + min(_FIRST_SECONDS * 2**doublings, _LONGEST_SECONDS)
            self.pauses += 1

    def pause(self, now: float, seconds: float) -> None:
        """The server asked for a pause; honoured up to a minute, longer ones per delivery."""
        until = now + min(seconds, _LONGEST_SECONDS)
        self.open_until = max(self.open_until or 0.0, until)
