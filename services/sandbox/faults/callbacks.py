"""What a party calls back when something happened: the right notice, and what goes wrong with it.

The right one is always owed and repeated until it is acknowledged. Wrong copies go ahead of it,
untrue ones after it; each waits until the one before was tried, also across a restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from common.money import AMOUNT_MINOR_MAX
from services.sandbox.faults.fate import Fate
from services.sandbox.faults.plan import FaultKind
from services.sandbox.notices import Notice, write_notice

Fields = Mapping[str, str]

_WRONG_BY_MINOR: Final = 100
"""More than the one minor unit by which a party may really take another amount, so that the wrong
amount of a callback never happens to be the one that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What happened, in the forms in which a party may tell of it."""

    party: str
    merchant_number: str
    url: str
    now: float
    next_at: float
    """When the right one is due, in Unix seconds."""
    right: Fields
    older: Fields | None = None
    """How it stood before; None where nothing stood."""
    denied: Fields | None = None
    """That it never came to it; None where the party has no words for that."""
    wrong_amount: Fields | None = None
    unknown: Fields | None = None
    """The same, of a reference that nobody ever gave; None where it is no payment."""


def wrong_amount_minor(amount_minor: int) -> int:
    """Return the amount that a callback names in place of this one."""
    if amount_minor + _WRONG_BY_MINOR <= AMOUNT_MINOR_MAX:
        return amount_minor + _WRONG_BY_MINOR
    return amount_minor - _WRONG_BY_MINOR


def owe(fate: Fate, news: News) -> None:
    """Write the callbacks that are owed, in the transaction of what they tell."""
    late = fate.draw(FaultKind.CALLBACK_LATE)
    next_at = news.next_at + (late.delay_seconds if late else 0.0)

    def write(
        fields: Fields, follows: Notice | None = None, *, signed_wrongly: bool = False
    ) -> Notice:
        notice = write_notice(
            fate.db,
            party=news.party,
            merchant_number=news.merchant_number,
            url=news.url,
            fields=fields,
            next_at=next_at,
            signed_wrongly=signed_wrongly,
            follows=None if follows is None else follows.notice_id,
        )
        fate.notices.append(notice)
        return notice

    ahead: Notice | None = None
    if fate.draw(FaultKind.CALLBACK_WRONG_SIGNATURE):
        ahead = write(news.right, signed_wrongly=True)
    if news.wrong_amount is not None and fate.draw(FaultKind.CALLBACK_WRONG_AMOUNT):
        ahead = write(news.wrong_amount, ahead)
    last = right = write(news.right, ahead)
    if fate.draw(FaultKind.CALLBACK_DOUBLE):
        write(news.right, ahead)
    if next_at <= news.now and fate.draw(FaultKind.CALLBACK_EARLY):
        fate.awaited = right
    if news.older is not None and fate.draw(FaultKind.CALLBACK_REORDERED):
        last = write(news.older, last)
    if news.denied is not None and fate.draw(FaultKind.CALLBACK_CONTRADICTORY):
        write(news.denied, last)
    if news.unknown is not None and fate.draw(FaultKind.CALLBACK_UNKNOWN_REFERENCE):
        write(news.unknown)
