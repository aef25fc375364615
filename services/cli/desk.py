"""The exception desk from the command line: ask, propose, decide, and print what stands."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC
from typing import Any, Final

import grpc.aio
import orjson
from google.protobuf.json_format import MessageToDict
from paymesh.payment.v1 import (
    DecideResolutionRequest,
    ExceptionState,
    GetExceptionRequest,
    ListExceptionsRequest,
    PaymentException,
    PaymentServiceStub,
    ProposeResolutionRequest,
)
from rich.console import Console
from rich.table import Table

from common.context import Mode
from common.errors import PaymeshError
from common.money import Money
from services.cli.operator import Operator, operate
from services.cli.printing import open_console, print_table

_TIMEOUT_SECONDS: Final = 30.0
_PAGE: Final = 500


async def list_exceptions(
    operator: Operator, console: Console, *, kind: str, include_resolved: bool, as_json: bool
) -> int:
    """Print what waits for a decision, page by page."""
    stub = operator.stub(PaymentServiceStub, "payment")
    found: list[PaymentException] = []
    token = ""
    while True:
        answer = await stub.ListExceptions(
            ListExceptionsRequest(
                include_resolved=include_resolved, kind=kind, page_size=_PAGE, page_token=token
            ),
            timeout=_TIMEOUT_SECONDS,
        )
        found.extend(answer.exceptions)
        token = answer.next_page_token
        if not token:
            break
    if as_json:
        _print_json([_as_dict(one) for one in found], console)
    elif not found:
        console.print("nothing waits for a decision")
    else:
        print_table(_table(found), console)
    return 0


async def show_exception(
    operator: Operator, console: Console, *, exception_id: str, as_json: bool
) -> int:
    """Print one exception."""
    _print(await _find(operator, exception_id), console, as_json=as_json)
    return 0


async def propose(
    operator: Operator,
    console: Console,
    *,
    exception_id: str,
    action: str,
    reason: str,
    as_json: bool,
) -> int:
    """Propose an action about an exception as it stands now."""
    found = await _find(operator, exception_id)
    answer = await operator.stub(PaymentServiceStub, "payment").ProposeResolution(
        ProposeResolutionRequest(
            exception_id=exception_id, action=action, reason=reason, version=found.version
        ),
        timeout=_TIMEOUT_SECONDS,
    )
    _print(answer.exception, console, as_json=as_json)
    return 0


async def decide(
    operator: Operator,
    console: Console,
    *,
    exception_id: str,
    approved: bool,
    reason: str,
    as_json: bool,
) -> int:
    """Approve or reject the proposal that stands now."""
    found = await _find(operator, exception_id)
    answer = await operator.stub(PaymentServiceStub, "payment").DecideResolution(
        DecideResolutionRequest(
            exception_id=exception_id, approved=approved, reason=reason, version=found.version
        ),
        timeout=_TIMEOUT_SECONDS,
    )
    _print(answer.exception, console, as_json=as_json)
    return 0


async def _find(operator: Operator, exception_id: str) -> PaymentException:
    stub = operator.stub(PaymentServiceStub, "payment")
    request = GetExceptionRequest(exception_id=exception_id)
    return (await stub.GetException(request, timeout=_TIMEOUT_SECONDS)).exception


VERBS: Final[Mapping[str, Callable[..., Awaitable[int]]]] = {
    "list": list_exceptions,
    "show": show_exception,
    "propose": propose,
    "decide": decide,
}
"""What can be done at the desk."""


async def act(verb: str, name: str, roles: tuple[str, ...], mode: str, **asked: Any) -> int:
    """Do one of the verbs below as an operator; what is refused is said, and ends the program."""
    if mode.upper() not in Mode.__members__:
        sys.exit(f"paymesh: there is no mode {mode}; there are live, test and shadow")
    try:
        async with operate(name=name, roles=roles, mode=Mode(mode.upper())) as operator:
            return await VERBS[verb](operator, open_console(), **asked)
    except PaymeshError as error:
        sys.exit(f"paymesh: {error.message}")
    except grpc.aio.AioRpcError as error:
        sys.exit(f"paymesh: {error.details()}")


def _table(found: Sequence[PaymentException]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("id", "kind", "state", "subject", "money", "due", "by default"):
        table.add_column(title, no_wrap=title in ("id", "subject"))
    for one in found:
        due = one.due_at.ToDatetime(UTC)
        table.add_row(
            one.id,
            one.kind,
            _state(one),
            one.subject_id,
            _money(one),
            f"{due:%Y-%m-%d %H:%M:%S}",
            one.default_action,
        )
    return table


def _print(one: PaymentException, console: Console, *, as_json: bool) -> None:
    if as_json:
        _print_json(_as_dict(one), console)
        return
    due = one.due_at.ToDatetime(UTC)
    lines = {
        "exception": one.id,
        "kind": one.kind,
        "state": _state(one),
        "about": " ".join(dict.fromkeys(filter(None, (one.subject_id, one.payment_id)))),
        "channel": one.channel,
        "money": _money(one),
        "what": one.detail,
        "actions": ", ".join(one.actions),
        "deadline": f"{due:%Y-%m-%d %H:%M:%S} UTC, then {one.default_action}",
        "action": one.action,
        "maker": " · ".join(filter(None, (one.maker, one.maker_reason))),
        "checker": " · ".join(filter(None, (one.checker, one.checker_reason))),
        "came of it": one.resolution,
        "story": one.biz_trace_id,
        "version": str(one.version),
    }
    for title, text in lines.items():
        if text:
            console.print(f"{title:>10}  {text}", highlight=False, markup=False)


def _state(one: PaymentException) -> str:
    return ExceptionState.Name(one.state).removeprefix("EXCEPTION_STATE_")


def _money(one: PaymentException) -> str:
    if not one.HasField("amount"):
        return ""
    try:
        return str(Money(one.amount.currency_code, one.amount.amount_minor))
    except ValueError:
        # A channel may name a currency that no registry knows.
        return f"{one.amount.currency_code} {one.amount.amount_minor} minor"


def _as_dict(one: PaymentException) -> dict[str, Any]:
    values: dict[str, Any] = MessageToDict(
        one, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    values["state"] = _state(one)
    values["version"] = one.version
    if one.HasField("amount"):
        values["amount"]["amount_minor"] = one.amount.amount_minor
    return values


def _print_json(value: object, console: Console) -> None:
    console.print(
        orjson.dumps(value, option=orjson.OPT_INDENT_2).decode(),
        soft_wrap=True,
        highlight=False,
        markup=False,
    )
