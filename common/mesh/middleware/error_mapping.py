"""Turns what leaves a servicer into an answer: reason, outcome, retry, and no inner words.

The other direction, from an answer to an error of ours, is made where calls are awaited
(`common.mesh.calling`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from common.errors import PaymeshError
from common.mesh.incoming import IncomingCall, IncomingMiddleware
from common.mesh.status import AbortedCallError, status_of

_log: Final = logging.getLogger(__name__)


class IncomingErrorMapping(IncomingMiddleware):
    """Writes the status of failed calls; an exception of no known kind is logged in full here."""

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Give a failed call its status."""
        if error is None or call.status is not None:
            return
        call.status = status_of(error, changes_nothing=call.method.changes_nothing)
        if not isinstance(error, (PaymeshError, AbortedCallError, asyncio.CancelledError)):
            _log.error("call to %s failed unexpectedly", call.method.path, exc_info=error)
