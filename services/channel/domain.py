"""Charges and refunds at channels, and how news of them is taken: pure, in any order of arrival.

News reaches us by four ways (the answer to our call, an answer to a question, a close, a callback)
and no way is faster for ever. So news is never applied because it came last, only because the table
of moves has it: money that was taken is a fact which no later word takes back. And a callback
comes over a connection that we did not open: where it denies what we asked for, or ends what is
open without money, it is believed only after the channel said the same to our own question.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from common.money import Money


class ChargeState(enum.StrEnum):
    """How far a charge is."""

    UNKNOWN = "UNKNOWN"
    """Intent is stored; the channel is being called, or it is not known what it did."""
    NOT_SENT = "NOT_SENT"
    """Surely nothing reached the channel; the same reference may be sent again."""
    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CLOSED = "CLOSED"
    CONFLICTED = "CONFLICTED"


class RefundState(enum.StrEnum):
    """How far a refund is."""

    UNKNOWN = "UNKNOWN"
    NOT_SENT = "NOT_SENT"
    PENDING = "PENDING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


_C = ChargeState
_R = RefundState

CHARGE_MOVES: Final[Mapping[ChargeState, frozenset[ChargeState]]] = {
    _C.UNKNOWN: frozenset(
        {_C.NOT_SENT, _C.PENDING, _C.SUCCEEDED, _C.FAILED, _C.CLOSED, _C.CONFLICTED}
    ),
    # FAILED once somebody has asked: whoever was told so must not see it sent again.
    _C.NOT_SENT: frozenset({_C.UNKNOWN, _C.FAILED, _C.SUCCEEDED, _C.CONFLICTED}),
    _C.PENDING: frozenset({_C.SUCCEEDED, _C.FAILED, _C.CLOSED, _C.CONFLICTED}),
    # Late news: the money was taken after all.
    _C.FAILED: frozenset({_C.SUCCEEDED, _C.CONFLICTED}),
    _C.CLOSED: frozenset({_C.SUCCEEDED, _C.CONFLICTED}),
    _C.SUCCEEDED: frozenset(),
    _C.CONFLICTED: frozenset(),
}

REFUND_MOVES: Final[Mapping[RefundState, frozenset[RefundState]]] = {
    _R.UNKNOWN: frozenset({_R.NOT_SENT, _R.PENDING, _R.SUCCEEDED, _R.FAILED}),
    _R.NOT_SENT: frozenset({_R.UNKNOWN, _R.SUCCEEDED}),
    # Accepted, and not known any more: it was never carried out, and may be sent again.
    _R.PENDING: frozenset({_R.NOT_SENT, _R.SUCCEEDED, _R.FAILED}),
    _R.FAILED: frozenset({_R.SUCCEEDED}),
    _R.SUCCEEDED: frozenset(),
}

CHARGE_ENDED: Final = frozenset({_C.NOT_SENT, _C.SUCCEEDED, _C.FAILED, _C.CLOSED})
"""Nothing more happens by itself. (A conflict waits for a person.)"""

REFUND_ENDED: Final = frozenset({_R.NOT_SENT, _R.SUCCEEDED, _R.FAILED})
"""Nothing more happens by itself."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose row it is."""

    tenant_id: str
    mode: str
    merchant_id: str
    actor: str
    biz_trace_id: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the channel, or the way to it, said no."""

    reason: str = ""
    """Name in `ErrorReason`: `DECLINED`, `CHANNEL_INVALID`, `CHANNEL_UNAVAILABLE` …"""
    code: str = ""
    """Unified code of a decline."""
    raw_code: str = ""
    raw_message: str = ""
    """The channel's words, masked."""
    remedy: str = ""
    """What may help, as the table of declines says: `RETRY_ELSEWHERE`, `STEP_UP` …"""
    blame: str = ""


NO_REFUSAL: Final = Refusal()


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """A request to a channel to take money, and what became of it."""

    reference: str
    owner: Owner
    channel: str
    payment_id: str
    product: str
    card_id: str
    subject: str
    amount: Money
    expires_at: datetime | None
    state: ChargeState = ChargeState.UNKNOWN
    received: Money | None = None
    """What the channel says it took; set in SUCCEEDED and CONFLICTED."""
    channel_transaction_no: str = ""
    qr_content: str = ""
    redirect_url: str = ""
    refusal: Refusal = NO_REFUSAL
    paid_at: datetime | None = None
    version: int = 1
    created_at: datetime
    """When the intent was stored; also what the channel is told."""
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """A request to a channel to give money back, and what became of it."""

    reference: str
    charge_reference: str
    owner: Owner
    channel: str
    subject_id: str
    amount: Money
    words: str
    """The merchant's reason."""
    state: RefundState = RefundState.UNKNOWN
    channel_transaction_no: str = ""
    refusal: Refusal = NO_REFUSAL
    version: int = 1
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class News:
    """What one of the four ways tells; `state` is a name of the noun's state."""

    state: str
    money: Money | None = None
    channel_transaction_no: str = ""
    qr_content: str = ""
    redirect_url: str = ""
    refusal: Refusal = NO_REFUSAL
    happened_at: datetime | None = None


class Verdict(enum.StrEnum):
    """What a piece of news came to."""

    CHANGED = "CHANGED"
    """The row moved."""
    COMPLETED = "COMPLETED"
    """Same state, but details that were missing."""
    NOTHING_NEW = "NOTHING_NEW"
    """Known, or older than what is known."""
    CONTRADICTED = "CONTRADICTED"
    """It denies a fact; the fact stays, and a person has to look."""
    DOUBTED = "DOUBTED"
    """A callback that is not believed by itself; the answer to a question decides."""
    ORPHAN = "ORPHAN"
    """It tells of a reference that this channel was never given."""
    REPEATED = "REPEATED"
    """A copy of a callback that was taken before."""


def hear_charge(charge: Charge, news: News, at: datetime) -> tuple[Charge, Verdict]:
    """Return the charge after one piece of news, and what it came to.

    Success with another amount or currency than was asked for is no success but a conflict.
    """
    told = ChargeState(news.state)
    if told is ChargeState.SUCCEEDED and news.money not in (None, charge.amount):
        told = ChargeState.CONFLICTED
    if told == charge.state:
        if told is ChargeState.CONFLICTED and news.money not in (None, charge.received):
            return charge, Verdict.CONTRADICTED
        return _complete_charge(charge, news, at)
    if told not in CHARGE_MOVES[charge.state]:
        return charge, _judge_refused(charge.state, told)
    settled = told in (ChargeState.SUCCEEDED, ChargeState.CONFLICTED)
    after = replace(
        charge,
        state=told,
        received=(news.money or charge.amount) if settled else None,
        channel_transaction_no=news.channel_transaction_no or charge.channel_transaction_no,
        qr_content=news.qr_content or charge.qr_content,
        redirect_url=news.redirect_url or charge.redirect_url,
        refusal=news.refusal,
        paid_at=(news.happened_at or at) if settled else None,
        version=charge.version + 1,
        updated_at=at,
    )
    return after, Verdict.CHANGED


def _complete_charge(charge: Charge, news: News, at: datetime) -> tuple[Charge, Verdict]:
    after = replace(
        charge,
        channel_transaction_no=charge.channel_transaction_no or news.channel_transaction_no,
        qr_content=charge.qr_content or news.qr_content,
        redirect_url=charge.redirect_url or news.redirect_url,
    )
    if after == charge:
        return charge, Verdict.NOTHING_NEW
    return replace(after, version=charge.version + 1, updated_at=at), Verdict.COMPLETED


def _judge_refused(known: ChargeState, told: ChargeState) -> Verdict:
    """A fact that is denied must be looked at; anything else is merely late."""
    merely_late = {ChargeState.UNKNOWN, ChargeState.NOT_SENT, ChargeState.PENDING}
    if known in _TAKEN and told not in merely_late:
        return Verdict.CONTRADICTED
    return Verdict.NOTHING_NEW


_TAKEN: Final = frozenset({_C.SUCCEEDED, _C.CONFLICTED})
_UNDECIDED: Final = frozenset({_C.UNKNOWN, _C.PENDING})
_REFUND_UNDECIDED: Final = frozenset({_R.UNKNOWN, _R.PENDING})


def doubts_charge(charge: Charge, news: News) -> bool:
    """Say whether a callback's word is not enough, and the channel has to be asked.

    It is not for success with other money than was asked for (or without a word of how much), and
    not for an end without money of a charge that is open: by the one a forged or mistaken message
    would move the books, by the other it would end an order that the payer pays.
    """
    told = ChargeState(news.state)
    if told is ChargeState.SUCCEEDED:
        return charge.state not in _TAKEN and news.money != charge.amount
    return told in (ChargeState.FAILED, ChargeState.CLOSED) and charge.state in _UNDECIDED


def keep_doubted_charge(charge: Charge) -> tuple[Charge, Verdict]:
    """Return an open charge, one version on, so that others hear that it has to be asked about.

    A charge that has ended is asked about no more, so there the callback denies what is known.
    """
    if charge.state not in _UNDECIDED:
        return charge, Verdict.CONTRADICTED
    return replace(charge, version=charge.version + 1), Verdict.DOUBTED


def hear_refund(refund: Refund, news: News, at: datetime) -> tuple[Refund, Verdict]:
    """Return the refund after one piece of news, and what it came to.

    Success with another amount is not believed: the refund stays open and a person looks at it.
    """
    told = RefundState(news.state)
    if told is RefundState.SUCCEEDED and news.money not in (None, refund.amount):
        return refund, Verdict.CONTRADICTED
    if told == refund.state:
        number = refund.channel_transaction_no or news.channel_transaction_no
        if number == refund.channel_transaction_no:
            return refund, Verdict.NOTHING_NEW
        after = replace(
            refund, channel_transaction_no=number, version=refund.version + 1, updated_at=at
        )
        return after, Verdict.COMPLETED
    if told not in REFUND_MOVES[refund.state]:
        denied = refund.state is RefundState.SUCCEEDED and told is RefundState.FAILED
        return refund, Verdict.CONTRADICTED if denied else Verdict.NOTHING_NEW
    after = replace(
        refund,
        state=told,
        channel_transaction_no=news.channel_transaction_no or refund.channel_transaction_no,
        refusal=news.refusal,
        version=refund.version + 1,
        updated_at=at,
    )
    return after, Verdict.CHANGED


def doubts_refund(refund: Refund, news: News) -> bool:
    """Say whether a callback's word is not enough: a refusal of what the channel works on.

    Who believed a mistaken one would give the money back by another way, too.
    """
    return RefundState(news.state) is RefundState.FAILED and refund.state in _REFUND_UNDECIDED


def keep_doubted_refund(refund: Refund) -> tuple[Refund, Verdict]:
    """Return an open refund, one version on, so that others hear that it has to be asked about."""
    if refund.state not in _REFUND_UNDECIDED:
        return refund, Verdict.CONTRADICTED
    return replace(refund, version=refund.version + 1), Verdict.DOUBTED


def charge_differs(stored: Charge, asked: Charge) -> str:
    """Return the first field in which a repeat of a charge differs; empty when none does."""
    named = (
        ("channel", stored.channel, asked.channel),
        ("payment_id", stored.payment_id, asked.payment_id),
        ("amount.currency_code", stored.amount.currency_code, asked.amount.currency_code),
        ("amount.amount_minor", stored.amount.amount_minor, asked.amount.amount_minor),
        ("product", stored.product, asked.product),
        ("card_id", stored.card_id, asked.card_id),
    )
    return next((name for name, before, now in named if before != now), "")


def refund_differs(stored: Refund, asked: Refund) -> str:
    """Return the first field in which a repeat of a refund differs; empty when none does."""
    named = (
        ("charge_reference", stored.charge_reference, asked.charge_reference),
        ("amount.currency_code", stored.amount.currency_code, asked.amount.currency_code),
        ("amount.amount_minor", stored.amount.amount_minor, asked.amount.amount_minor),
        ("subject_id", stored.subject_id, asked.subject_id),
    )
    return next((name for name, before, now in named if before != now), "")


_ADVICE: Final[Mapping[str, str]] = {
    "RETRY_ELSEWHERE": "TRY_AGAIN",
    "RETRY_LATER": "TRY_AGAIN",
    "OTHER_METHOD": "OTHER_METHOD",
    "STEP_UP": "CONTACT_BANK",
    "STOP": "NONE",
}


def advice_to_payer(refusal: Refusal) -> str:
    """Return what the payer may do after a refusal, in the words of the contract."""
    return _ADVICE.get(refusal.remedy, "NONE") if refusal.code else ""


def unseen_charge_state(charge: Charge, now: datetime, request_life: timedelta) -> str:
    """Return what a charge is that the channel says it does not know; empty while that is open.

    "Not found" is no failure: a request may still be on its way until the channel's longest request
    life has passed, and some channels know a code only once it is scanned. After that, a charge
    that the channel never accepted has surely failed, and one that waited for its payer is closed.
    """
    born_at = charge.created_at
    if charge.state is ChargeState.PENDING:
        last = charge.expires_at or born_at + CODE_LIFE
        return ChargeState.CLOSED if now > last + request_life else ""
    # An unknown charge changed last when it was sent, which may have been for a second time.
    return ChargeState.FAILED if now > charge.updated_at + request_life else ""


CODE_LIFE: Final = timedelta(hours=2)
"""How long a payer can pay when we named no end: the longest of the protocols that we speak."""
