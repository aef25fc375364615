"""The chart, and vouchers by hand, from the command line: ask the ledger, print what it says."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from paymesh.account.v1 import (
    BookVoucherRequest,
    GeneralLedgerServiceStub,
    GetVoucherRequest,
    ListSubjectsRequest,
    NormalSide,
    ReverseVoucherRequest,
    SubjectClass,
    Voucher,
    VoucherLine,
    VoucherSource,
)
from rich.console import Console
from rich.table import Table

from common.errors import Outcome, PaymeshError
from common.money import Money, UnknownCurrencyError, format_decimal, parse_decimal
from services.cli.bookkeeping import print_json
from services.cli.operator import Operator
from services.cli.printing import print_table

_TIMEOUT_SECONDS: Final = 30.0


async def subjects(operator: Operator, console: Console, *, as_json: bool) -> int:
    """Print the chart of accounts."""
    answer = await _books(operator).ListSubjects(ListSubjectsRequest(), timeout=_TIMEOUT_SECONDS)
    if as_json:
        print_json(answer, console)
        return 0
    table = Table("subject", "name", "class", "side", "kinds of account", box=None, pad_edge=False)
    for one in answer.subjects:
        table.add_row(
            one.code,
            one.name,
            _word(SubjectClass.Name(one.subject_class), "SUBJECT_CLASS_"),
            _word(NormalSide.Name(one.normal_side), "NORMAL_SIDE_"),
            ", ".join(one.account_kinds),
        )
    print_table(table, console)
    return 0


async def voucher(operator: Operator, console: Console, *, voucher_id: str, as_json: bool) -> int:
    """Print one voucher."""
    answer = await _books(operator).GetVoucher(
        GetVoucherRequest(id=voucher_id), timeout=_TIMEOUT_SECONDS
    )
    return _print(answer.voucher, console, as_json=as_json)


async def book(
    operator: Operator,
    console: Console,
    *,
    summary: str,
    currency: str,
    debit: Sequence[str],
    credit: Sequence[str],
    value_on: str,
    request_id: str,
    as_json: bool,
) -> int:
    """Book a voucher by hand, and print it."""
    request_id = request_id or _new_request_id()
    request = BookVoucherRequest(
        request_id=request_id,
        summary=summary,
        currency_code=currency,
        lines=[
            *(_line(one, currency, is_debit=True) for one in debit),
            *(_line(one, currency, is_debit=False) for one in credit),
        ],
        value_on=value_on,
    )
    with _naming(request_id):
        answer = await _books(operator).BookVoucher(request, timeout=_TIMEOUT_SECONDS)
    return _print(answer.voucher, console, as_json=as_json)


async def reverse(
    operator: Operator,
    console: Console,
    *,
    voucher_id: str,
    reason: str,
    request_id: str,
    as_json: bool,
) -> int:
    """Take a voucher back, and print what did it."""
    request_id = request_id or _new_request_id()
    request = ReverseVoucherRequest(request_id=request_id, voucher_id=voucher_id, reason=reason)
    with _naming(request_id):
        answer = await _books(operator).ReverseVoucher(request, timeout=_TIMEOUT_SECONDS)
    if as_json:
        print_json(answer, console)
        return 0
    _print_voucher(answer.reversal, console)
    if answer.HasField("replacement"):
        console.print("in its place:")
        _print_voucher(answer.replacement, console)
    return 0


VERBS: Final[Mapping[str, Callable[..., Awaitable[int]]]] = {
    "subjects": subjects,
    "voucher": voucher,
    "book": book,
    "reverse": reverse,
}
"""What can be done."""


def _books(operator: Operator) -> GeneralLedgerServiceStub:
    return operator.stub(GeneralLedgerServiceStub, "account")


def _new_request_id() -> str:
    return f"cli-{secrets.token_hex(8)}"


@contextmanager
def _naming(request_id: str) -> Iterator[None]:
    """End the program with the request's id when it may be done: another would do it anew."""
    try:
        yield
    except PaymeshError as error:
        if error.outcome is Outcome.NOT_EXECUTED:
            raise
        sys.exit(
            f"paymesh: {error.message} Perhaps it was done; to be sure, repeat it"
            f" with --request-id {request_id}"
        )


def _line(told: str, currency: str, *, is_debit: bool) -> VoucherLine:
    """Read `6602=500.00`; what is none ends the program."""
    subject, _, amount = told.partition("=")
    try:
        minor = parse_decimal(amount, currency).amount_minor
    except UnknownCurrencyError:
        sys.exit(f"paymesh: there is no currency {currency!r}")
    except ValueError as error:
        sys.exit(f"paymesh: {told!r} is not SUBJECT=AMOUNT: {error}")
    return VoucherLine(
        subject_code=subject,
        debit_minor=minor if is_debit else 0,
        credit_minor=0 if is_debit else minor,
    )


def _print(one: Voucher, console: Console, *, as_json: bool) -> int:
    if as_json:
        print_json(one, console)
    else:
        _print_voucher(one, console)
    return 0


def _print_voucher(one: Voucher, console: Console) -> None:
    source = _word(VoucherSource.Name(one.source), "VOUCHER_SOURCE_")
    details = {
        "voucher": f"{one.id}, no. {one.number} of {one.business_date}: {one.summary}",
        "made from": f"{source} {one.source_id}",
        "rule": f"{one.rule} v{one.rule_version}" if one.rule else "",
        "value on": one.value_on,
        "taken back by": one.reversed_by_id,
        "story": one.biz_trace_id,
        "by": one.actor,
    }
    for label, value in details.items():
        if value:
            console.print(f"{label}: {value}", highlight=False, markup=False)
    table = Table("  subject", "debit", "credit", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for line in one.lines:
        table.add_row(
            f"  {line.subject_code}",
            _amount(one.currency_code, line.debit_minor),
            _amount(one.currency_code, line.credit_minor),
        )
    print_table(table, console)


def _amount(currency_code: str, minor: int) -> str:
    return f"{format_decimal(Money(currency_code, minor))} {currency_code}" if minor else ""


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
