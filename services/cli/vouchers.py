"""`paymesh books subjects|voucher|book|reverse`: the chart, and vouchers by hand.

Writing asks for the role `accountant`; whoever holds the mesh's secrets may say that they have it,
and the audit log keeps who said so.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any

import typer

from services.cli.books import ACCOUNTANT, Role
from services.cli.exceptions import AsJson, AsName, InMode, login

RequestId = Annotated[
    str, typer.Option("--request-id", help="repeats under the same one are answered alike")
]
Lines = list[str]


def subjects_command(as_json: AsJson = False) -> None:
    """Show the chart of accounts: subjects, and the kinds of account that add up to them."""
    _run("subjects", "", (), as_json=as_json)


def voucher_command(
    voucher_id: Annotated[str, typer.Argument(help="vch_…")],
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Show one voucher."""
    _run("voucher", "", (), mode, voucher_id=voucher_id, as_json=as_json)


def book_command(
    summary: Annotated[str, typer.Argument(help="what happened; no personal data")],
    currency: Annotated[str, typer.Argument(help="CNY, USD …")],
    debit: Annotated[Lines, typer.Option(metavar="SUBJECT=AMOUNT", help="as often as needed")],
    credit: Annotated[Lines, typer.Option(metavar="SUBJECT=AMOUNT", help="as often as needed")],
    value_on: Annotated[
        str, typer.Option(metavar="YYYY-MM-DD", help="the day that the money belongs to")
    ] = "",
    request_id: RequestId = "",
    name: AsName = "",
    role: Role = ACCOUNTANT,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Book a voucher by hand, on the current business date."""
    _run(
        "book",
        name,
        (role,),
        mode,
        summary=summary,
        currency=currency,
        debit=debit,
        credit=credit,
        value_on=value_on,
        request_id=request_id,
        as_json=as_json,
    )


def reverse_command(
    voucher_id: Annotated[str, typer.Argument(help="vch_…")],
    reason: Annotated[str, typer.Option(help="why; no personal data")],
    request_id: RequestId = "",
    name: AsName = "",
    role: Role = ACCOUNTANT,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Take a voucher back by another with the sides exchanged."""
    asked = {"voucher_id": voucher_id, "reason": reason, "request_id": request_id}
    _run("reverse", name, (role,), mode, as_json=as_json, **asked)


def add_commands(books_app: typer.Typer) -> None:
    """Put the commands under `paymesh books`."""
    books_app.command("subjects")(subjects_command)
    books_app.command("voucher")(voucher_command)
    books_app.command("book")(book_command)
    books_app.command("reverse")(reverse_command)


def _run(verb: str, name: str, roles: tuple[str, ...], mode: str = "live", **asked: Any) -> None:
    # Imported here, so that a process that serves does not carry it.
    from services.cli.bookkeeping import perform
    from services.cli.voucher_writing import VERBS

    work = VERBS[verb]
    sys.exit(asyncio.run(perform(work, name or login(), ("operator", *roles), mode, **asked)))
