"""Turns what leaves a servicer into an answer: reason, outcome, retry, and no inner words.

The other direction, from an answer to an error of ours, is made where calls are awaited
(`common.mesh.calling`).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import asyncpg

from common.db.failures import is_away
from common.errors import Outcome, PaymeshError, Retry, UnavailableError
from common.mesh.incoming import IncomingCall, IncomingMiddleware
from common.mesh.status import AbortedCallError, status_of

_log: Final = logging.getLogger(__name__)


# What is lost with a database: its own words, and those of the connection to it.
_LOST: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
    TimeoutError,
)


class IncomingErrorMapping(IncomingMiddleware):
    """Writes the status of failed calls; an exception of no known kind is logged in full here.

    A service whose database is away is away itself, and its callers leave it alone for a while.
    """

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Give a failed call its status."""
        if error is None or call.status is not None:
            return
        if isinstance(error, _LOST) and is_away(error):
            _log.warning("call to %s: the database is away: %r", call.method.path, error)
            error = UnavailableError(
                target=call.method.service,
                outcome=Outcome.NOT_EXECUTED if call.method.changes_nothing else Outcome.UNKNOWN,
                retry=Retry.SAME_ID,
            )
        call.status = status_of(error, changes_nothing=call.method.changes_nothing)
        if not isinstance(error, (PaymeshError, AbortedCallError, asyncio.CancelledError)):
            _log.error("call to %s failed unexpectedly", call.method.path, exc_info=error)
