"""How old a frame is when it is read: a process that stood still finds calls that nobody awaits.

A call says how much time it has left, counted from when its frame was written. A frame may have
lain in the socket since: then the call looks fresh and is not. Two clocks cannot be compared, but
two differences of them can: the least that was ever between the sender's clock and ours is what
the way takes, and whatever a frame took beyond that it has waited.
"""

from __future__ import annotations

from typing import Final

# Less than this is how a busy machine works, not a clock that went another way.
_NOTICEABLE_SECONDS: Final = 0.25
# A backlog is read within moments. When everything is late for longer, the sender's clock stood
# still (its machine was paused), and what is usual has to be learnt anew.
_LEARN_ANEW_SECONDS: Final = 2.0


class Lateness:
    """What is known of one sender's clock; one for each stream."""

    __slots__ = ("_late_since", "_least", "_least_since")

    def __init__(self) -> None:
        self._least: float | None = None
        self._late_since: float | None = None
        self._least_since = 0.0

    def measure(self, sent_at: float, now: float) -> float:
        """Return the seconds that a frame has waited to be read.

        `sent_at` is an instant of the sender's clock, `now` one of ours; neither clock may run
        backwards, and that is all that they have in common.
        """
        apart = now - sent_at
        least = self._least
        if least is None or apart <= least:
            self._least = apart
            self._late_since = None
            return 0.0
        late = apart - least
        if late < _NOTICEABLE_SECONDS:
            self._late_since = None
            return late
        if self._late_since is None:
            self._late_since, self._least_since = now, apart
        self._least_since = min(self._least_since, apart)
        if now - self._late_since < _LEARN_ANEW_SECONDS:
            return late
        self._least = self._least_since
        self._late_since = None
        return apart - self._least_since
