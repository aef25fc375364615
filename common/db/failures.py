"""What a failed write means for the batch that it carried.

The server's error classes (PostgreSQL manual, appendix A) come down to three ways on: try the whole
batch again, split it to find the one to blame, or read back what was written because nobody knows.
"""

from __future__ import annotations

import enum
from typing import Final

import asyncpg


class Failure(enum.Enum):
    """How to go on after an exception from the database."""

    RETRY_WHOLE = "RETRY_WHOLE"
    """Surely rolled back, and for no fault of the batch: the same again will do."""

    SPLIT = "SPLIT"
    """Surely rolled back, and some item of the batch is to blame (or our own code is)."""

    READ_BACK = "READ_BACK"
    """The answer was lost, perhaps of a COMMIT: only the rows can tell."""


# SQLSTATE classes and codes that name neither fault nor certainty of the batch.
_RETRY_STATES: Final = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "55P03",  # lock_not_available
        "57014",  # query_canceled, by statement_timeout: rolled back
        "53000",  # insufficient_resources
        "53100",  # disk_full
        "53200",  # out_of_memory
        "25006",  # read_only_sql_transaction: a former primary; nothing was written
    }
)
# Data exceptions, constraints, limits of the server (an entry too long for its index).
_VALUE_CLASSES: Final = ("22", "23", "54")
_READ_BACK_CLASSES: Final = ("08", "57P", "58", "XX")
_SESSION_WORDS: Final = ("closed", "connection", "another operation")
_NOT_CONNECTED: Final = frozenset({"53300", "57P03"})  # too many connections, starting up


def classify(error: BaseException) -> Failure | None:
    """Return how to go on after `error`, or None when it does not come from the database."""
    if isinstance(error, asyncpg.PostgresError):
        return _classify_state(str(error.sqlstate or ""))
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        # Raised by the client: a session that is no good, or a wrong argument that never left.
        return Failure.READ_BACK if _is_broken_session(error) else Failure.SPLIT
    if isinstance(error, ConnectionError | TimeoutError | OSError):
        return Failure.READ_BACK
    return None


def is_about_values(error: BaseException) -> bool:
    """Say whether what was to be written can never be: the values are at fault, not the schema."""
    if isinstance(error, asyncpg.PostgresError):
        return str(error.sqlstate or "").startswith(_VALUE_CLASSES)
    # The client's own refusal of an argument, which never left.
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def is_away(error: BaseException) -> bool:
    """Say whether the server cannot be reached at the moment (also: refuses new sessions)."""
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return state in _NOT_CONNECTED or state.startswith(("08", "57P"))
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError):
        return _is_broken_session(error)
    return isinstance(error, ConnectionError | TimeoutError | OSError)


def _classify_state(state: str) -> Failure:
    if state in _RETRY_STATES or state in _NOT_CONNECTED:
        return Failure.RETRY_WHOLE
    if state.startswith(_READ_BACK_CLASSES):
        return Failure.READ_BACK
    return Failure.SPLIT


def _is_broken_session(error: BaseException) -> bool:
    """Say whether the client's session is at fault, and not what it was given.

    While a server dies, a session may be found in the middle of an operation that nobody waits for
    any more: the client then refuses the next one, whatever it is.
    """
    if isinstance(error, asyncpg.InternalClientError):
        return True
    text = str(error).lower()
    is_argument = isinstance(error, ValueError)
    return not is_argument and any(word in text for word in _SESSION_WORDS)
