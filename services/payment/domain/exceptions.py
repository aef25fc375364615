"""What the flows do not decide by themselves: kinds, actions, states and deadlines, as data.

Source: docs/decisions/2026-11-22-exceptions.md. Every kind has a default action, carried out at the
deadline when nobody decides; so no exception waits for ever.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from common.ids import derive
from common.money import Money
from services.payment.domain.payments import Owner, Payment, Refund
from services.payment.domain.states import (
    PAYMENT_ENDED,
    REFUND_ENDED,
    IllegalMoveError,
    PaymentState,
    RefundState,
)


class ExceptionKind(enum.StrEnum):
    """What is wrong."""

    AMOUNT_MISMATCH = "AMOUNT_MISMATCH"
    CURRENCY_MISMATCH = "CURRENCY_MISMATCH"
    RETURN_REFUSED = "RETURN_REFUSED"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    LEDGER_REFUSED = "LEDGER_REFUSED"
    REFUND_AFTER_FAILURE = "REFUND_AFTER_FAILURE"
    RETURN_AFTER_END = "RETURN_AFTER_END"
    CALLBACK_CONTRADICTION = "CALLBACK_CONTRADICTION"
    CALLBACK_UNKNOWN_REFERENCE = "CALLBACK_UNKNOWN_REFERENCE"


class Action(enum.StrEnum):
    """What can be done about it."""

    RETURN = "RETURN"
    RETRY = "RETRY"
    MOVE_TO_UNCLAIMED = "MOVE_TO_UNCLAIMED"
    ASK = "ASK"
    FAIL = "FAIL"
    ACKNOWLEDGE = "ACKNOWLEDGE"
    DISMISS = "DISMISS"


class ExceptionState(enum.StrEnum):
    """How far it is."""

    OPEN = "OPEN"
    PROPOSED = "PROPOSED"
    APPROVED = "APPROVED"
    RESOLVED = "RESOLVED"


_K = ExceptionKind
_A = Action
_S = ExceptionState

ACTIONS: Final[Mapping[ExceptionKind, tuple[Action, ...]]] = {
    _K.AMOUNT_MISMATCH: (_A.RETURN,),
    _K.CURRENCY_MISMATCH: (_A.RETURN,),
    _K.RETURN_REFUSED: (_A.RETRY, _A.MOVE_TO_UNCLAIMED),
    _K.OUTCOME_UNKNOWN: (_A.ASK, _A.FAIL),
    _K.LEDGER_REFUSED: (_A.RETRY,),
    _K.REFUND_AFTER_FAILURE: (_A.ACKNOWLEDGE,),
    _K.RETURN_AFTER_END: (_A.ACKNOWLEDGE,),
    _K.CALLBACK_CONTRADICTION: (_A.ASK, _A.DISMISS),
    _K.CALLBACK_UNKNOWN_REFERENCE: (_A.ASK, _A.DISMISS),
}
"""Actions of each kind; the first is what the deadline carries out."""

EXCEPTION_MOVES: Final[Mapping[ExceptionState, frozenset[ExceptionState]]] = {
    _S.OPEN: frozenset({_S.PROPOSED, _S.APPROVED, _S.RESOLVED}),
    # Another proposal, a rejection, an approval; or the deadline or the subject's own end is first.
    _S.PROPOSED: frozenset({_S.PROPOSED, _S.OPEN, _S.APPROVED, _S.RESOLVED}),
    # Asked or tried once more in vain: it waits again, for longer.
    _S.APPROVED: frozenset({_S.OPEN, _S.RESOLVED}),
    _S.RESOLVED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class PaymentException:
    """Something on the list of what a person looks at."""

    id: str
    kind: ExceptionKind
    state: ExceptionState
    owner: Owner
    """The subject's world and merchant; its actor is empty."""
    subject_id: str
    payment_id: str
    channel: str
    amount: Money | None
    detail: str
    occasion: str
    """Which time of the same kind about the same subject it is."""
    default_action: Action
    due_at: datetime
    biz_trace_id: str
    created_at: datetime
    updated_at: datetime
    version: int = 1
    repeats: int = 0
    """How often its default action was carried out in vain."""
    action: Action | None = None
    maker: str = ""
    maker_reason: str = ""
    checker: str = ""
    checker_reason: str = ""
    resolution: str = ""

    @property
    def actions(self) -> tuple[Action, ...]:
        """Return what can be proposed."""
        return ACTIONS[self.kind]

    def moved(self, state: ExceptionState, at: datetime, **changes: object) -> PaymentException:
        """Return it after a legal move."""
        if state not in EXCEPTION_MOVES[self.state]:
            raise IllegalMoveError(f"exception {self.state} → {state}")
        return replace(self, state=state, version=self.version + 1, updated_at=at, **changes)  # type: ignore[arg-type]

    def resolved(self, resolution: str, at: datetime) -> PaymentException:
        """Return it with what came of it."""
        return self.moved(_S.RESOLVED, at, resolution=resolution)

    def put_off(self, at: datetime, due_at: datetime, detail: str = "") -> PaymentException:
        """Return it open again, after its action was carried out in vain."""
        return self.moved(
            _S.OPEN,
            at,
            repeats=self.repeats + 1,
            due_at=due_at,
            detail=detail or self.detail,
            **_UNDECIDED,
        )

    def rejected(self, at: datetime) -> PaymentException:
        """Return it open again, its proposal refused; history and audit keep who said what."""
        return self.moved(_S.OPEN, at, **_UNDECIDED)


_UNDECIDED: Final[Mapping[str, object]] = {
    "action": None,
    "maker": "",
    "maker_reason": "",
    "checker": "",
    "checker_reason": "",
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long an exception waits for a person."""

    first_seconds: float
    repeats_max: int
    """How often the deadline doubles, and how often a channel is asked to give money back."""

    def due_at(self, now: datetime, repeats: int) -> datetime:
        """Return the deadline of what was carried out in vain so often."""
        return now + timedelta(seconds=self.first_seconds * 2 ** min(repeats, self.repeats_max))

    def default_action(self, kind: ExceptionKind, repeats: int) -> Action:
        """Return what the deadline carries out.

        A channel that refuses again and again to give money back is not asked for ever: what it
        keeps from the payer is kept for the payer.
        """
        if kind is _K.RETURN_REFUSED and repeats >= self.repeats_max:
            return _A.MOVE_TO_UNCLAIMED
        return ACTIONS[kind][0]


def exception_id(kind: ExceptionKind, subject_id: str, occasion: str) -> str:
    """Return the id of an exception: the same for the same occasion, however often it is met."""
    return derive("exc", subject_id, kind, occasion)


def new_exception(
    kind: ExceptionKind,
    subject: Payment | Refund,
    deadlines: Deadlines,
    now: datetime,
    *,
    occasion: str,
    detail: str,
    amount: Money,
    channel: str,
    repeats: int = 0,
) -> PaymentException:
    """Return an exception about a payment or refund, as it is opened."""
    owner = subject.owner
    return PaymentException(
        id=exception_id(kind, subject.id, occasion),
        kind=kind,
        state=_S.OPEN,
        owner=Owner(owner.tenant_id, owner.mode, owner.merchant_id, ""),
        subject_id=subject.id,
        payment_id=subject.id if isinstance(subject, Payment) else subject.payment_id,
        channel=channel,
        amount=amount,
        detail=detail,
        occasion=occasion,
        default_action=deadlines.default_action(kind, repeats),
        due_at=deadlines.due_at(now, repeats),
        biz_trace_id=subject.biz_trace_id,
        created_at=now,
        updated_at=now,
    )


def may_fail(state: PaymentState | RefundState) -> bool:
    """Say whether a subject can be let fail: nobody knows, and nothing has come of it yet."""
    if isinstance(state, PaymentState):
        return state in (PaymentState.PENDING, PaymentState.UNKNOWN)
    return state not in REFUND_ENDED


_OF_A_RETURN: Final = frozenset({_K.AMOUNT_MISMATCH, _K.CURRENCY_MISMATCH, _K.RETURN_REFUSED})
_BOOKED_SINCE: Final = frozenset(
    {PaymentState.CONFLICTED, PaymentState.RETURNING, RefundState.HELD}
)


def is_settled_by(kind: ExceptionKind, state: PaymentState | RefundState) -> bool:
    """Say whether a subject that has come to a state needs nothing more of an exception."""
    ended = state in PAYMENT_ENDED or state in REFUND_ENDED
    if kind is _K.OUTCOME_UNKNOWN:
        return ended or state == PaymentState.CONFLICTED
    if kind is _K.LEDGER_REFUSED:
        return ended or state in _BOOKED_SINCE
    return ended and kind in _OF_A_RETURN
