"""`paymesh books`: business days, the proof, the trial balance, the register, periods.

Closing and archiving periods asks for the role `accountant`; whoever holds the mesh's secrets may
say that they have it, and the audit log keeps who said so.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated, Any, Final

import typer

from services.cli.exceptions import AsJson, AsName, InMode, login

books_app = typer.Typer(
    help="The inner books: days and the proof, the register and vouchers, periods.",
    no_args_is_help=True,
)

ACCOUNTANT: Final = "accountant"

Role = Annotated[str, typer.Option(help="in which role")]
Day = Annotated[str, typer.Argument(metavar="YYYY-MM-DD")]
Month = Annotated[str, typer.Argument(metavar="YYYY-MM")]
FromOn = Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="first business day")]
ToOn = Annotated[str, typer.Option("--to", metavar="YYYY-MM-DD", help="last business day")]


@books_app.command("cut")
def cut_command(
    next_day: Annotated[
        str,
        typer.Argument(
            metavar="[YYYY-MM-DD]",
            help="the day that begins; the next by default; `today` is the calendar's",
        ),
    ] = "",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="do not wait for the close")] = False,
    name: AsName = "",
    as_json: AsJson = False,
) -> None:
    """End the business day, begin the next, and wait until the ended one is closed."""
    _run("cut", name, (), next_day=next_day, without_waiting=no_wait, as_json=as_json)


@books_app.command("days")
def days_command(
    limit: Annotated[int, typer.Option(min=1, help="the latest N")] = 31, as_json: AsJson = False
) -> None:
    """List business days and how far they are, latest first."""
    _run("days", "", (), limit=limit, as_json=as_json)


@books_app.command("proof")
def proof_command(
    day: Annotated[
        str, typer.Option("--day", metavar="YYYY-MM-DD", help="the last proof of this day")
    ] = "",
    last: Annotated[bool, typer.Option("--last", help="show the last one, make none")] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that the accounts add up to the general ledger; 1 when they do not."""
    _run("proof", "", (), day=day, last=last, as_json=as_json)


@books_app.command("trial-balance")
def trial_balance_command(
    from_on: FromOn = "", to_on: ToOn = "", mode: InMode = "live", as_json: AsJson = False
) -> None:
    """Show each subject's opening balance, debits, credits and closing balance."""
    _run("trial-balance", "", (), mode=mode, from_on=from_on, to_on=to_on, as_json=as_json)


@books_app.command("register")
def register_command(
    day: Day,
    to_on: ToOn = "",
    subject: Annotated[str, typer.Option(help="only vouchers with a line on it")] = "",
    limit: Annotated[int, typer.Option(min=1, help="the first N")] = 100,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """List the vouchers of business days, by number."""
    _run(
        "register",
        "",
        (),
        mode=mode,
        from_on=day,
        to_on=to_on or day,
        subject=subject,
        limit=limit,
        as_json=as_json,
    )


@books_app.command("close")
def close_command(
    month: Month, name: AsName = "", role: Role = ACCOUNTANT, as_json: AsJson = False
) -> None:
    """Close an accounting period: it takes no voucher any more."""
    _run("close", name, (role,), period=month, as_json=as_json)


@books_app.command("archive")
def archive_command(
    month: Month, name: AsName = "", role: Role = ACCOUNTANT, as_json: AsJson = False
) -> None:
    """Set the vouchers of a closed period aside; they are read as before."""
    _run("archive", name, (role,), period=month, as_json=as_json)


@books_app.command("periods")
def periods_command(
    limit: Annotated[int, typer.Option(min=1, help="the latest N")] = 24, as_json: AsJson = False
) -> None:
    """List accounting periods, latest first."""
    _run("periods", "", (), limit=limit, as_json=as_json)


def _run(verb: str, name: str, roles: tuple[str, ...], mode: str = "live", **asked: Any) -> None:
    # Imported here, so that a process that serves does not carry it.
    from services.cli.bookkeeping import act

    sys.exit(asyncio.run(act(verb, name or login(), ("operator", *roles), mode, **asked)))
