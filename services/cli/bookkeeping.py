"""The inner books from the command line: ask the ledger, and print what it says."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, date, timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

import grpc.aio
import orjson
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from paymesh.account.v1 import (
    AccountServiceStub,
    ArchivePeriodRequest,
    BusinessDay,
    BusinessDayState,
    ClosePeriodRequest,
    CutDayRequest,
    GeneralLedgerServiceStub,
    GetBusinessDateRequest,
    GetBusinessDayRequest,
    GetProofRequest,
    GetTrialBalanceRequest,
    ListBusinessDaysRequest,
    ListPeriodsRequest,
    ListVouchersRequest,
    NormalSide,
    Period,
    PeriodState,
    Proof,
    ProofOccasion,
    ProveBooksRequest,
    SubjectBalance,
    Voucher,
)
from rich.console import Console
from rich.table import Table

from common.clock import SystemClock
from common.context import Mode
from common.errors import PaymeshError
from common.money import Money, format_decimal
from common.settings import Settings
from services.cli.operator import Operator, operate
from services.cli.printing import open_console, print_table

TODAY: Final = "today"
"""In place of a date: the day that it is now in the business zone."""

_TIMEOUT_SECONDS: Final = 30.0
# A proof sums up all accounts; a cut waits for one.
_LONG_TIMEOUT_SECONDS: Final = 300.0
_PAGE: Final = 500

Stub = GeneralLedgerServiceStub

_COMPARED: Final[Mapping[int, str]] = {
    ProofOccasion.PROOF_OCCASION_CONTINUOUS: "sums only",
    ProofOccasion.PROOF_OCCASION_DAY_CUT: "sums; the day's transfers, their entries, vouchers",
    ProofOccasion.PROOF_OCCASION_ON_DEMAND: (
        "sums; every day's transfers, entries, vouchers; entries without a transfer"
    ),
}
"""How much is compared, by a proof's occasion."""


def _books(operator: Operator) -> Stub:
    return operator.stub(GeneralLedgerServiceStub, "account")


async def cut(
    operator: Operator, console: Console, *, next_day: str, without_waiting: bool, as_json: bool
) -> int:
    """Cut the day; 1 when an ended day is not closed though it was waited for."""
    wanted = _calendar_day() if next_day == TODAY else next_day or await _day_after(operator)
    answer = await _books(operator).CutDay(
        CutDayRequest(next_business_date=wanted, without_waiting=without_waiting),
        timeout=_LONG_TIMEOUT_SECONDS,
    )
    if as_json:
        print_json(answer, console)
    else:
        console.print(f"business date: {answer.business_date}", highlight=False)
        if answer.days:
            print_table(_days_table(answer.days), console)
        for day in answer.days:
            _print_unfit(day.proof, console)
    is_closed = all(day.state == BusinessDayState.BUSINESS_DAY_STATE_CLOSED for day in answer.days)
    return 0 if is_closed or without_waiting else 1


def _calendar_day() -> str:
    """The day that it is now in the business zone: the same for every repeat of a scheduled cut."""
    zone = ZoneInfo(Settings().business_time_zone)
    return SystemClock().now().astimezone(zone).date().isoformat()


async def _day_after(operator: Operator) -> str:
    accounts = operator.stub(AccountServiceStub, "account")
    today = await accounts.GetBusinessDate(GetBusinessDateRequest(), timeout=_TIMEOUT_SECONDS)
    return (date.fromisoformat(today.business_date) + timedelta(days=1)).isoformat()


async def days(operator: Operator, console: Console, *, limit: int, as_json: bool) -> int:
    """List business days."""
    found = await list_days(operator, limit)
    if as_json:
        _print_list(found, console)
    else:
        print_table(_days_table(found), console)
    return 0


async def list_days(operator: Operator, limit: int | None = None) -> list[BusinessDay]:
    """Return the latest business days, or all of them, page by page."""
    found: list[BusinessDay] = []
    token = ""
    while limit is None or len(found) < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - len(found))
        answer = await _books(operator).ListBusinessDays(
            ListBusinessDaysRequest(page_size=size, page_token=token), timeout=_TIMEOUT_SECONDS
        )
        found.extend(answer.days)
        token = answer.next_page_token
        if not token:
            break
    return found


async def proof(
    operator: Operator, console: Console, *, day: str, last: bool, as_json: bool
) -> int:
    """Make a proof, or show one; 1 when it does not hold."""
    books = _books(operator)
    if day:
        request = GetBusinessDayRequest(business_date=day)
        found = (await books.GetBusinessDay(request, timeout=_TIMEOUT_SECONDS)).day
        if not found.HasField("proof"):
            sys.exit(f"paymesh: {day} was not proved yet")
        shown = found.proof
    elif last:
        shown = (await books.GetProof(GetProofRequest(), timeout=_TIMEOUT_SECONDS)).proof
    else:
        shown = (await books.ProveBooks(ProveBooksRequest(), timeout=_LONG_TIMEOUT_SECONDS)).proof
    if as_json:
        print_json(shown, console)
    else:
        _print_proof(shown, console)
    return 0 if shown.holds else 1


async def trial_balance(
    operator: Operator, console: Console, *, from_on: str, to_on: str, as_json: bool
) -> int:
    """Print the trial balance; 1 when it does not balance."""
    answer = await _books(operator).GetTrialBalance(
        GetTrialBalanceRequest(from_on=from_on, to_on=to_on), timeout=_TIMEOUT_SECONDS
    )
    if as_json:
        print_json(answer, console)
    else:
        print_table(_balances_table(answer.balances), console)
        for currency, difference in sorted(answer.difference_minor.items()):
            console.print(f"debits − credits: {_money(currency, difference)}", highlight=False)
    return 1 if any(answer.difference_minor.values()) else 0


async def register(
    operator: Operator,
    console: Console,
    *,
    from_on: str,
    to_on: str,
    subject: str,
    limit: int,
    as_json: bool,
) -> int:
    """Print vouchers of business days, in the order of their numbers."""
    found: list[Voucher] = []
    token = ""
    while len(found) < limit:
        answer = await _books(operator).ListVouchers(
            ListVouchersRequest(
                from_on=from_on,
                to_on=to_on,
                subject_code=subject,
                page_size=min(_PAGE, limit - len(found)),
                page_token=token,
            ),
            timeout=_TIMEOUT_SECONDS,
        )
        found.extend(answer.vouchers)
        token = answer.next_page_token
        if not token:
            break
    if as_json:
        _print_list(found, console)
        return 0
    print_table(_register_table(found), console)
    if token:
        console.print(f"… and more than these {len(found):,} (--limit)")
    return 0


async def close(operator: Operator, console: Console, *, period: str, as_json: bool) -> int:
    """Close a period."""
    answer = await _books(operator).ClosePeriod(
        ClosePeriodRequest(period=period), timeout=_LONG_TIMEOUT_SECONDS
    )
    return _print_period(answer.period, console, as_json=as_json)


async def archive(operator: Operator, console: Console, *, period: str, as_json: bool) -> int:
    """Set a closed period aside."""
    answer = await _books(operator).ArchivePeriod(
        ArchivePeriodRequest(period=period), timeout=_LONG_TIMEOUT_SECONDS
    )
    return _print_period(answer.period, console, as_json=as_json)


async def periods(operator: Operator, console: Console, *, limit: int, as_json: bool) -> int:
    """List periods."""
    answer = await _books(operator).ListPeriods(
        ListPeriodsRequest(page_size=min(limit, _PAGE)), timeout=_TIMEOUT_SECONDS
    )
    if as_json:
        _print_list(answer.periods, console)
        return 0
    table = _table("period", "state", "vouchers", "closed at", "archived at", right=("vouchers",))
    for one in answer.periods:
        table.add_row(
            one.period,
            _state(PeriodState, one.state),
            f"{one.vouchers_count:,}",
            _at(one, "closed_at"),
            _at(one, "archived_at"),
        )
    print_table(table, console)
    return 0


VERBS: Final[Mapping[str, Callable[..., Awaitable[int]]]] = {
    "cut": cut,
    "days": days,
    "proof": proof,
    "trial-balance": trial_balance,
    "register": register,
    "close": close,
    "archive": archive,
    "periods": periods,
}
"""What can be done."""


async def act(verb: str, name: str, roles: tuple[str, ...], mode: str, **asked: Any) -> int:
    """Do one of the verbs as an operator."""
    return await perform(VERBS[verb], name, roles, mode, **asked)


async def perform(
    work: Callable[..., Awaitable[int]],
    name: str,
    roles: tuple[str, ...],
    mode: str,
    **asked: Any,
) -> int:
    """Do work as an operator; what is refused is said, and ends the program."""
    if mode.upper() not in Mode.__members__:
        sys.exit(f"paymesh: there is no mode {mode}; there are live, test and shadow")
    try:
        async with operate(name=name, roles=roles, mode=Mode(mode.upper())) as operator:
            return await work(operator, open_console(), **asked)
    except PaymeshError as error:
        sys.exit(f"paymesh: {error.message}")
    except grpc.aio.AioRpcError as error:
        sys.exit(f"paymesh: {error.details()}")


def _days_table(found: Iterable[BusinessDay]) -> Table:
    table = _table(
        *("day", "book", "state", "vouchers", "in flight", "proof", "closed at"),
        right=("book", "vouchers", "in flight"),
    )
    for day in found:
        holds = ("holds" if day.proof.holds else "broken") if day.HasField("proof") else ""
        table.add_row(
            day.business_date,
            str(day.book),
            _state(BusinessDayState, day.state),
            f"{day.vouchers_count:,}",
            f"{day.transfers_in_flight:,}",
            holds,
            _at(day, "closed_at"),
        )
    return table


def _print_proof(shown: Proof, console: Console) -> None:
    amounts = ("accounts", "buffered", "ledger", "in flight", "off")
    table = _table("world", "subject", "currency", *amounts, right=amounts)
    for line in shown.lines:
        values = (
            line.outer_minor,
            line.buffered_minor,
            line.inner_minor,
            line.in_flight_minor,
            line.difference_minor,
        )
        if any(values):
            table.add_row(
                f"{line.tenant_id}/{line.mode}",
                line.subject_code,
                line.currency_code,
                *(_decimal(line.currency_code, value) for value in values),
            )
    print_table(table, console)
    at = shown.proved_at.ToDatetime(UTC)
    occasion = _state(ProofOccasion, shown.occasion).lower().replace("_", " ")
    console.print(
        f"{shown.business_date}, {occasion}, {at:%Y-%m-%d %H:%M:%S} UTC:"
        f" {shown.in_flight_count:,} transfers in flight",
        highlight=False,
    )
    console.print(f"compared: {_COMPARED.get(shown.occasion, '')}", highlight=False)
    _print_unfit(shown, console)
    console.print("proof: holds" if shown.holds else "proof: BROKEN")


def _print_unfit(shown: Proof, console: Console) -> None:
    for unfit in shown.unfit:
        console.print(f"  off: {unfit.finding}", highlight=False, markup=False)


def _print_period(period: Period, console: Console, *, as_json: bool) -> int:
    if as_json:
        print_json(period, console)
        return 0
    print_table(_balances_table(period.balances), console)
    console.print(
        f"{period.period}: {_state(PeriodState, period.state)}, {period.vouchers_count:,} vouchers",
        highlight=False,
    )
    return 0


def _balances_table(balances: Iterable[SubjectBalance]) -> Table:
    amounts = ("opening", "debits", "credits", "closing")
    table = _table("subject", "name", "side", *amounts, right=amounts)
    for one in balances:
        values = (one.opening_minor, one.debits_minor, one.credits_minor, one.closing_minor)
        table.add_row(
            one.subject_code,
            one.subject_name,
            _state(NormalSide, one.normal_side).lower(),
            *(_money(one.currency_code, value) for value in values),
        )
    return table


def _register_table(found: Iterable[Voucher]) -> Table:
    table = _table("day", "no.", "voucher", "summary", "subject", "debit", "credit")
    for column in table.columns[-2:]:
        column.justify = "right"
    for voucher in found:
        place = (voucher.business_date, str(voucher.number), voucher.id, voucher.summary)
        for line in voucher.lines:
            table.add_row(
                *place,
                line.subject_code,
                _money(voucher.currency_code, line.debit_minor) if line.debit_minor else "",
                _money(voucher.currency_code, line.credit_minor) if line.credit_minor else "",
            )
            place = ("", "", "", "")
    return table


def _table(*titles: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, pad_edge=False)
    wanted = set(right)
    for title in titles:
        table.add_column(title, justify="right" if title in wanted else "left", no_wrap=True)
    return table


def _state(enum: Any, value: int) -> str:
    """The name of an enum's value, without the prefix that all of them share."""
    name: str = enum.Name(value)
    shared = len(enum.Name(0)) - len("UNSPECIFIED")
    return name[shared:]


def _at(message: Message, field: str) -> str:
    if not message.HasField(field):
        return ""
    at = getattr(message, field).ToDatetime(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _money(currency_code: str, amount_minor: int) -> str:
    return f"{_decimal(currency_code, amount_minor)} {currency_code}"


def _decimal(currency_code: str, amount_minor: int) -> str:
    try:
        return format_decimal(Money(currency_code, amount_minor))
    except ValueError:  # no registry knows the currency
        return f"{amount_minor} minor"


def as_dict(message: Message) -> Any:
    """Return a message as JSON values; amounts and counts are numbers."""
    values = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _with_numbers(values)


def _with_numbers(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        is_amounts = key.endswith("_minor")
        return {name: _with_numbers(v, key if is_amounts else name) for name, v in value.items()}
    if isinstance(value, list):
        return [_with_numbers(one) for one in value]
    is_number = key.endswith(("_minor", "_count")) or key in ("number", "transfers_in_flight")
    return int(value) if is_number else value


def print_json(message: Message, console: Console) -> None:
    """Print a message as JSON, for programs."""
    _print(as_dict(message), console)


def _print_list(messages: Iterable[Message], console: Console) -> None:
    _print([as_dict(message) for message in messages], console)


def _print(value: object, console: Console) -> None:
    console.print(
        orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
