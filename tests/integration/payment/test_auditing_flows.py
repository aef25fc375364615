"""The audit and the desk's commands on a platform where everything has gone wrong once."""

from __future__ import annotations

import io

import orjson
from desk_kit import call_of_person, new_case, refused_return
from flow_cases import conflicted
from flow_scenarios import SCENARIOS
from payment_kit import PaymentKit
from rich.console import Console

from common.context import bound
from services.cli.audit import audit
from services.cli.desk import decide, list_exceptions, propose, show_exception
from services.cli.operator import Operator

# Trade hears of no payment here, and settlement clears none: nobody carries events.
_NOT_TOLD = ("order ", ": cleared ")


async def _off(payment: PaymentKit) -> list[str]:
    call = call_of_person("ada", "operator")
    with bound(call):
        findings = await audit(Operator(payment.kit.host, call.principal))
    return [line for line in findings.off if not any(words in line for words in _NOT_TOLD)]


async def test_the_audit_understands_every_end(payment: PaymentKit) -> None:
    for scenario in SCENARIOS.values():
        case = await scenario.begin(payment)
        await scenario.act(case, payment.parts())
        await scenario.finish(case)
    assert await _off(payment) == []


async def test_the_audit_explains_what_waits_in_suspense(payment: PaymentKit) -> None:
    case = await new_case(payment, "quick_pay")
    await conflicted("EUR", 900)(case)
    assert await _off(payment) == []
    other = await new_case(payment, "qr_pay")
    assert other.order_id
    suspense = payment.account("platform", "suspense", "EUR")
    back = payment.account("bank", "channel_receivable", "EUR")
    await payment.open_account("bank", "channel_receivable", "EUR")
    await payment.move(suspense, back, 1, "EUR")
    assert await _off(payment) == ["suspense in EUR: 899, payments explain 900"]
    await payment.move(back, suspense, 1, "EUR")
    await payment.bring_to_rest()
    assert await _off(payment) == []


async def test_the_desk_is_worked_from_the_command_line(payment: PaymentKit, desk: object) -> None:
    _, one = await refused_return(payment, desk)  # type: ignore[arg-type]

    async def say(verb: object, name: str, role: str, **asked: object) -> str:
        out = io.StringIO()
        call = call_of_person(name, "operator", role)
        with bound(call):
            operator = Operator(payment.kit.host, call.principal)
            status = await verb(operator, Console(file=out, width=300), **asked)  # type: ignore[operator]
        assert status == 0
        return out.getvalue()

    everything = {"kind": "", "include_resolved": False}
    listed = await say(list_exceptions, "ada", "", as_json=False, **everything)
    assert one.id in listed
    assert "RETURN_REFUSED" in listed
    told = {"exception_id": one.id, "reason": "the bank's letter", "as_json": False}
    await say(propose, "ada", "desk_maker", action="MOVE_TO_UNCLAIMED", **told)
    done = await say(decide, "grace", "desk_checker", approved=True, **told)
    assert "RESOLVED" in done
    shown = orjson.loads(await say(show_exception, "ada", "", exception_id=one.id, as_json=True))
    assert (shown["state"], shown["maker"], shown["checker"]) == (
        "RESOLVED",
        "OPERATOR:ada",
        "OPERATOR:grace",
    )
    assert shown["amount"] == {"currency_code": "USD", "amount_minor": 1000}
    nothing = await say(list_exceptions, "ada", "", as_json=False, **everything)
    assert nothing.strip() == "nothing waits for a decision"
