"""The states of a payment and of a refund, and the moves between them, as data."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Mapping
from typing import Final


class PaymentState(enum.StrEnum):
    """How far a payment is."""

    PENDING = "PENDING"
    REQUIRES_ACTION = "REQUIRES_ACTION"
    UNKNOWN = "UNKNOWN"
    RECEIVED = "RECEIVED"
    RETURNING = "RETURNING"
    CONFLICTED = "CONFLICTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    RETURNED = "RETURNED"
    UNCLAIMED = "UNCLAIMED"


class RefundState(enum.StrEnum):
    """How far an instruction to give money back is."""

    PENDING = "PENDING"
    HELD = "HELD"
    WAITING_FUNDS = "WAITING_FUNDS"
    UNKNOWN = "UNKNOWN"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


_P = PaymentState
_R = RefundState

# An open payment may turn out to be anything; money that has come is claimed or goes back.
_OPEN_MOVES: Final = frozenset({_P.RECEIVED, _P.CONFLICTED, _P.FAILED, _P.CLOSED})

PAYMENT_MOVES: Final[Mapping[PaymentState, frozenset[PaymentState]]] = {
    _P.PENDING: _OPEN_MOVES | {_P.REQUIRES_ACTION, _P.UNKNOWN},
    _P.REQUIRES_ACTION: _OPEN_MOVES | {_P.UNKNOWN},
    _P.UNKNOWN: _OPEN_MOVES | {_P.REQUIRES_ACTION},
    _P.RECEIVED: frozenset({_P.SUCCEEDED, _P.RETURNING}),
    # A channel that refuses for good to give the money back leaves it here, kept for the payer.
    _P.RETURNING: frozenset({_P.RETURNED, _P.UNCLAIMED}),
    # What came goes back, by a person's decision or at the deadline; it never pays the order.
    _P.CONFLICTED: frozenset({_P.RETURNING}),
    _P.SUCCEEDED: frozenset(),
    # Late news: the channel took the money after all. It is received, and claimed or returned.
    _P.FAILED: frozenset({_P.RECEIVED, _P.CONFLICTED}),
    _P.CLOSED: frozenset({_P.RECEIVED, _P.CONFLICTED}),
    _P.RETURNED: frozenset(),
    # Late news: the channel gave it back after all.
    _P.UNCLAIMED: frozenset({_P.RETURNED}),
}

REFUND_MOVES: Final[Mapping[RefundState, frozenset[RefundState]]] = {
    _R.PENDING: frozenset({_R.HELD, _R.WAITING_FUNDS, _R.FAILED}),
    _R.WAITING_FUNDS: frozenset({_R.HELD, _R.FAILED}),
    _R.HELD: frozenset({_R.UNKNOWN, _R.SUCCEEDED, _R.FAILED}),
    _R.UNKNOWN: frozenset({_R.SUCCEEDED, _R.FAILED}),
    _R.SUCCEEDED: frozenset(),
    _R.FAILED: frozenset(),
}

PAYMENT_OPEN: Final = frozenset({_P.PENDING, _P.REQUIRES_ACTION, _P.UNKNOWN})
"""The outcome is not known yet; the other side has to be asked."""

PAYMENT_ENDED: Final = frozenset({_P.SUCCEEDED, _P.FAILED, _P.CLOSED, _P.RETURNED, _P.UNCLAIMED})
"""Nothing more happens by itself."""

PAYMENT_OVER: Final = frozenset({_P.SUCCEEDED, _P.RETURNED, _P.UNCLAIMED})
"""Ended for its order and its payer: late news can only tell of money that went back once more."""

PAYMENT_RETURN_ENDED: Final = frozenset({_P.RETURNED, _P.UNCLAIMED})
"""What had to go back has left our ways; the channel was asked for that, perhaps several times."""

PAYMENT_LOST: Final = frozenset(
    {_P.FAILED, _P.CLOSED, _P.CONFLICTED, _P.RETURNING, _P.RETURNED, _P.UNCLAIMED}
)
"""It can no longer win its order."""

REFUND_ENDED: Final = frozenset({_R.SUCCEEDED, _R.FAILED})
"""Nothing more happens."""


class IllegalMoveError(Exception):
    """A flow asked for a move that the table does not have: a bug, never an input."""


def check_payment_path(path: tuple[PaymentState, ...]) -> None:
    """Refuse a path with a move that the table does not have; raises IllegalMoveError."""
    for before, after in itertools.pairwise(path):
        if after not in PAYMENT_MOVES[before]:
            raise IllegalMoveError(f"payment {before} → {after}")


def check_refund_path(path: tuple[RefundState, ...]) -> None:
    """Refuse a path with a move that the table does not have; raises IllegalMoveError."""
    for before, after in itertools.pairwise(path):
        if after not in REFUND_MOVES[before]:
            raise IllegalMoveError(f"refund {before} → {after}")
