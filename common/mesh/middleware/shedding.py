"""A bound on the calls that a process works on: beyond it they are refused, unbegun.

Refusing early keeps the calls that were taken within their deadlines; a queue would make all late.
"""

from __future__ import annotations

from typing import Final

from common.errors import OverloadedError
from common.mesh.incoming import IncomingCall, IncomingMiddleware

RETRY_AFTER_SECONDS: Final = 0.05
"""About the time in which a full process has worked off what it holds."""


class IncomingShedding(IncomingMiddleware):
    """Counts the calls in flight and refuses those above the bound."""

    def __init__(self, calls_max: int) -> None:
        self._calls_max = calls_max
        self._in_flight = 0

    def before(self, call: IncomingCall) -> None:
        """Refuse the call when the process is full."""
        if self._in_flight >= self._calls_max:
            raise OverloadedError(limit=self._calls_max, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._in_flight += 1

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Make room for the next call."""
        self._in_flight -= 1
