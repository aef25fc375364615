"""`paymesh exceptions`: what waits for a person, and what a person decides about it.

One proposes (`desk_maker`), another approves or rejects (`desk_checker`). Who says so is `--as`;
whoever holds the mesh's secrets may say it, and the audit log keeps it.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import sys
from typing import Annotated, Any, Final

import typer

exceptions_app = typer.Typer(
    help="What waits for a person: list, show, propose, approve, reject.", no_args_is_help=True
)

MAKER: Final = "desk_maker"
CHECKER: Final = "desk_checker"

AsName = Annotated[str, typer.Option("--as", help="who says so; the login's name by default")]
Role = Annotated[str, typer.Option(help="in which role")]
InMode = Annotated[str, typer.Option("--mode", help="live, test or shadow")]
AsJson = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]
ExceptionId = Annotated[str, typer.Argument(help="exc_…")]
Reason = Annotated[str, typer.Option(help="why; no personal data")]


@exceptions_app.command("list")
def list_command(
    kind: Annotated[str, typer.Option(help="only this kind")] = "",
    everything: Annotated[bool, typer.Option("--all", help="resolved ones too")] = False,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """List what waits for a decision, oldest deadline first."""
    _run(
        "list",
        login(),
        ("operator",),
        mode,
        kind=kind,
        include_resolved=everything,
        as_json=as_json,
    )


@exceptions_app.command("show")
def show_command(exception_id: ExceptionId, mode: InMode = "live", as_json: AsJson = False) -> None:
    """Show one exception."""
    _run("show", login(), ("operator",), mode, exception_id=exception_id, as_json=as_json)


@exceptions_app.command("propose")
def propose_command(
    exception_id: ExceptionId,
    action: Annotated[str, typer.Argument(help="one of its actions")],
    reason: Reason,
    name: AsName = "",
    role: Role = MAKER,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Propose how an exception is resolved; another person has to approve it."""
    asked = {"exception_id": exception_id, "action": action, "reason": reason}
    _run("propose", name or login(), ("operator", role), mode, as_json=as_json, **asked)


@exceptions_app.command("approve")
def approve_command(
    exception_id: ExceptionId,
    reason: Reason,
    name: AsName = "",
    role: Role = CHECKER,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Approve what somebody else has proposed; it is carried out at once."""
    asked = {"exception_id": exception_id, "approved": True, "reason": reason}
    _run("decide", name or login(), ("operator", role), mode, as_json=as_json, **asked)


@exceptions_app.command("reject")
def reject_command(
    exception_id: ExceptionId,
    reason: Reason,
    name: AsName = "",
    role: Role = CHECKER,
    mode: InMode = "live",
    as_json: AsJson = False,
) -> None:
    """Reject what somebody else has proposed; the exception stays open."""
    asked = {"exception_id": exception_id, "approved": False, "reason": reason}
    _run("decide", name or login(), ("operator", role), mode, as_json=as_json, **asked)


def login() -> str:
    """Return the name of whoever runs the program."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid{os.getuid()}"


def _run(verb: str, name: str, roles: tuple[str, ...], mode: str, **asked: Any) -> None:
    # Imported here, so that a process that serves does not carry the desk.
    from services.cli.desk import act

    sys.exit(asyncio.run(act(verb, name, roles, mode, **asked)))
