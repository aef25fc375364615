"""The end of the demo's last business day: cut, closed, and every day proved."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from paymesh.account.v1 import (
    AccountServiceStub,
    BusinessDay,
    BusinessDayState,
    CutDayRequest,
    CutDayResponse,
    GeneralLedgerServiceStub,
    GetBusinessDateRequest,
)

from services.cli.bookkeeping import list_days
from services.cli.demo.persistence import persist
from services.cli.operator import Operator

_CUT_TIMEOUT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class ClosedBooks:
    """What the general ledger says at the end."""

    days_closed: int
    vouchers: int
    is_proved: bool
    """Whether the proof of every ended day holds."""
    unclosed: tuple[str, ...]
    """Days that ended and are not closed, each with its state."""


async def close_last_day(operator: Operator) -> ClosedBooks:
    """Cut the current day, wait until all ended days are closed, and say how they are."""
    accounts = operator.stub(AccountServiceStub, "account")
    books = operator.stub(GeneralLedgerServiceStub, "account")
    today = await persist(lambda: accounts.GetBusinessDate(GetBusinessDateRequest()))
    tomorrow = date.fromisoformat(today.business_date) + timedelta(days=1)
    request = CutDayRequest(next_business_date=tomorrow.isoformat())

    async def cut() -> CutDayResponse:
        return await books.CutDay(request, timeout=_CUT_TIMEOUT_SECONDS)

    # A cut answers with the days that it waited for; the same again goes on with what is left.
    answer = await persist(cut)
    if any(_is_cutting(day) for day in answer.days):
        await persist(cut)
    ended = [day for day in await persist(lambda: list_days(operator)) if not _is_open(day)]
    states = Counter(day.state for day in ended)
    return ClosedBooks(
        days_closed=states[BusinessDayState.BUSINESS_DAY_STATE_CLOSED],
        vouchers=sum(day.vouchers_count for day in ended),
        is_proved=all(day.proof.holds for day in ended),
        unclosed=tuple(
            f"{day.business_date} {BusinessDayState.Name(day.state)[len('BUSINESS_DAY_STATE_') :]}"
            for day in ended
            if day.state != BusinessDayState.BUSINESS_DAY_STATE_CLOSED
        ),
    )


def _is_open(day: BusinessDay) -> bool:
    return day.state == BusinessDayState.BUSINESS_DAY_STATE_OPEN


def _is_cutting(day: BusinessDay) -> bool:
    return day.state == BusinessDayState.BUSINESS_DAY_STATE_CUTTING
