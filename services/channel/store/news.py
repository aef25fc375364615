"""News on its way to its row: what is told, how it is judged there, and callbacks as rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Protocol, TypeVar

from common.db.types import Record
from common.events.event import NewEvent
from common.money import Money
from services.channel.domain import (
    Charge,
    News,
    Refund,
    Verdict,
    doubts_charge,
    doubts_refund,
    hear_charge,
    hear_refund,
    keep_doubted_charge,
    keep_doubted_refund,
)

Noun = TypeVar("Noun", Charge, Refund)

QUESTIONED: Final = frozenset({Verdict.ORPHAN, Verdict.CONTRADICTED})
"""Verdicts on callbacks that are told to whoever looks into them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A verified callback, without its personal parts."""

    callback_id: str
    channel: str
    notice_id: str
    kind: str
    raw_code: str
    body_digest: bytes
    payment_reference: str = ""
    """Our reference of the payment that a refund belongs to, if it names one."""
    requested_at: datetime | None = None
    """When we sent what it tells of, if it says so."""
    is_checked: bool = False
    """The channel was asked after it, with or without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A piece of news of one reference, on its way to the row."""

    reference: str
    news: News
    at: datetime
    actor: str
    way: str
    """How we learnt it, for the history: `answer`, `query`, `close`, `callback …`."""
    cause: str = ""
    publish: bool = True
    """Whether others hear of a change; not when the caller itself is waiting for it."""
    of_version: int = 0
    """The version of the row that it is a conclusion about: nothing to any other; 0 for facts."""
    notice: Notice | None = None


@dataclass(frozen=True, slots=True)
class Heard(Generic[Noun]):
    """What a piece of news came to."""

    noun: Noun | None
    """The row after it; None when there is none under that reference."""
    verdict: Verdict


class Announce(Protocol):
    """Makes the events that tell of news."""

    def changed(self, noun: Charge | Refund, told: Told) -> NewEvent:
        """Return the event of a noun after a piece of news."""
        ...

    def questioned(self, noun: Charge | Refund | None, told: Told, verdict: Verdict) -> NewEvent:
        """Return the event of a callback that has to be looked into."""
        ...


@dataclass(frozen=True, slots=True)
class Judge(Generic[Noun]):
    """How news of one kind of noun is judged."""

    hear: Callable[[Noun, News, datetime], tuple[Noun, Verdict]]
    doubts: Callable[[Noun, News], bool]
    keep_doubted: Callable[[Noun], tuple[Noun, Verdict]]

    def judge(
        self, known: Noun | None, told: Told, taken: set[tuple[str, str]]
    ) -> tuple[Noun | None, Verdict]:
        """Return the row after a piece of news, and what it came to.

        `taken` are the callbacks that were taken before; one that is taken now joins them. A
        callback that has to be checked first is DOUBTED and not taken.
        """
        notice = told.notice
        if notice is None:
            if known is None:
                return None, Verdict.ORPHAN
            if told.of_version not in (0, known.version):
                return known, Verdict.NOTHING_NEW
            return self.hear(known, told.news, told.at)
        key = (notice.channel, notice.notice_id)
        if key in taken:
            return known, Verdict.REPEATED
        if known is None or known.channel != notice.channel:
            # Perhaps our reference, but never given to this channel: none of the row's business.
            taken.add(key)
            return None, Verdict.ORPHAN
        is_doubted = self.doubts(known, told.news)
        if is_doubted and not notice.is_checked:
            return known, Verdict.DOUBTED
        taken.add(key)
        if is_doubted:
            return self.keep_doubted(known)
        return self.hear(known, told.news, told.at)


CHARGES: Final[Judge[Charge]] = Judge(hear_charge, doubts_charge, keep_doubted_charge)
REFUNDS: Final[Judge[Refund]] = Judge(hear_refund, doubts_refund, keep_doubted_refund)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCallback:
    """A callback that was not simply believed, as it is kept."""

    callback_id: str
    channel: str
    kind: str
    reference: str
    verdict: Verdict
    told_state: str
    money: Money | None
    channel_transaction_no: str
    payment_reference: str
    requested_at: datetime | None
    received_at: datetime


def kept_callback_from(row: Record) -> KeptCallback:
    """Return the callback of a row."""
    money = None
    if row["told_minor"] is not None:
        money = Money(row["told_currency_code"], row["told_minor"])
    return KeptCallback(
        callback_id=row["callback_id"],
        channel=row["channel"],
        kind=row["kind"],
        reference=row["reference"],
        verdict=Verdict(row["verdict"]),
        told_state=row["told_state"],
        money=money,
        channel_transaction_no=row["told_transaction_no"],
        payment_reference=row["told_payment_reference"],
        requested_at=row["told_requested_at"],
        received_at=row["received_at"],
    )


def notice_columns(notices: Sequence[tuple[Told, Verdict, str]]) -> list[list[Any]]:
    """Return the columns of `insert_callbacks`; each with its verdict and story."""
    rows = []
    for told, verdict, biz_trace_id in notices:
        notice, news = told.notice, told.news
        if notice is None:
            continue
        rows.append(
            (
                notice.channel,
                notice.notice_id,
                notice.callback_id,
                notice.kind,
                told.reference,
                news.state,
                news.money.currency_code if news.money else None,
                news.money.amount_minor if news.money else None,
                notice.raw_code,
                verdict,
                notice.body_digest,
                biz_trace_id,
                told.at,
                news.channel_transaction_no,
                notice.payment_reference,
                notice.requested_at,
            )
        )
    return [list(column) for column in zip(*rows, strict=True)]
