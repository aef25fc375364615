"""What an account takes in each status: a table, so that it can be read, and tested, as one.

Money that is on its way to an account which takes no credits is not sent back: it waits in the
book's account of kind `unclaimed`.
"""

from __future__ import annotations

import enum
from typing import Final

from services.account.domain.accounts import AccountStatus


class Operation(enum.StrEnum):
    """What a transfer does to one of its two accounts."""

    DEBIT = "DEBIT"
    """A new debit, single or pending."""
    CREDIT = "CREDIT"
    """A new credit, single."""
    REFUND_CREDIT = "REFUND_CREDIT"
    """A single credit that gives back what was paid from the account."""
    PENDING_CREDIT = "PENDING_CREDIT"
    """A new hold towards the account; where the money goes is decided when it is posted."""
    POST_DEBIT = "POST_DEBIT"
    """The debit of an older hold."""
    POST_CREDIT = "POST_CREDIT"
    """The credit of an older hold."""
    RETURN = "RETURN"
    """The end of an older hold, on either side, without a movement."""


class Taken(enum.Enum):
    """What becomes of the operation."""

    YES = "YES"
    NO = "NO"
    UNCLAIMED = "UNCLAIMED"
    """The credit goes to the book's unclaimed account; refused where none is open."""


_YES: Final = (Taken.YES, "")
_NO_DEBIT: Final = (Taken.NO, "ACCOUNT_DEBIT_FROZEN")
_ELSEWHERE: Final = (Taken.UNCLAIMED, "ACCOUNT_CREDIT_FROZEN")
_NO: Final = (Taken.NO, "ACCOUNT_CLOSED")
_CLOSED_ELSEWHERE: Final = (Taken.UNCLAIMED, "ACCOUNT_CLOSED")

_TABLE: Final = {
    AccountStatus.NORMAL: (_YES, _YES, _YES, _YES, _YES, _YES, _YES),
    AccountStatus.DEBIT_FROZEN: (_NO_DEBIT, _YES, _YES, _YES, _YES, _YES, _YES),
    AccountStatus.CREDIT_FROZEN: (_YES, _ELSEWHERE, _ELSEWHERE, _YES, _YES, _ELSEWHERE, _YES),
    AccountStatus.CLOSED: (_NO, _NO, _CLOSED_ELSEWHERE, _NO, _NO, _CLOSED_ELSEWHERE, _YES),
}

RULES: Final[dict[tuple[str, str], tuple[Taken, str]]] = {
    (status, operation): rule
    for status, rules in _TABLE.items()
    for operation, rule in zip(Operation, rules, strict=True)
}
"""(status, operation) → what becomes of it, and the reason where it is refused."""

REFUND_PREFIXES: Final = ("refund.", "payment.return")
"""Movements that begin so give back what was paid."""
