"""The exception desk through its RPCs: who may decide what, and what follows from it.

Two people with two roles; what they see is compared by version; what they did stands in the audit
log; and what nobody decides, the deadline does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from desk_kit import Desk, call_of_person, refused_return
from flow_cases import (
    AMOUNT,
)
from payment_kit import PaymentKit
from paymesh.payment.v1 import (
    EXCEPTION_STATE_OPEN,
    EXCEPTION_STATE_PROPOSED,
    EXCEPTION_STATE_RESOLVED,
    ExceptionOpened,
    ExceptionResolved,
    GetExceptionRequest,
    ListExceptionsRequest,
    PaymentException,
    PaymentServiceStub,
)

from common.audit import find_break
from common.context import Principal, bound
from common.errors import RemoteError


async def test_two_people_decide_and_the_audit_log_keeps_it(
    payment: PaymentKit, desk: Desk
) -> None:
    case, one = await refused_return(payment, desk)
    assert (one.state, one.kind) == (EXCEPTION_STATE_OPEN, "RETURN_REFUSED")
    assert list(one.actions) == ["RETRY", "MOVE_TO_UNCLAIMED"]
    assert (one.default_action, one.amount.amount_minor) == ("RETRY", AMOUNT)
    assert (one.payment_id, one.subject_id) == (case.payment_id, case.payment_id)
    listed = await desk.list(kind="RETURN_REFUSED")
    assert [found.id for found in listed.exceptions] == [one.id]
    one = await desk.propose(one, "RETRY")
    assert (one.state, one.action, one.maker) == (
        EXCEPTION_STATE_PROPOSED,
        "RETRY",
        "OPERATOR:ada",
    )
    one = await desk.decide(one, approved=False)
    assert (one.state, one.action, one.maker) == (EXCEPTION_STATE_OPEN, "", "")
    one = await desk.propose(one, "MOVE_TO_UNCLAIMED")
    one = await desk.decide(one)
    assert (one.state, one.checker) == (EXCEPTION_STATE_RESOLVED, "OPERATOR:grace")
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "UNCLAIMED"
    rows = await payment.kit.rows(
        "payment",
        "SELECT actor, role, action, reason FROM audit WHERE subject = $1 ORDER BY position",
        f"exception {one.id}",
    )
    assert [(row["actor"], row["role"], row["action"]) for row in rows] == [
        ("OPERATOR:ada", "desk_maker", "exception.propose"),
        ("OPERATOR:grace", "desk_checker", "exception.reject"),
        ("OPERATOR:ada", "desk_maker", "exception.propose"),
        ("OPERATOR:grace", "desk_checker", "exception.approve"),
    ]
    async with payment.kit.pools["payment"].acquire() as connection:
        assert await find_break(connection) is None
    opened = await payment.kit.events("payment", "payment.exception.opened.v1")
    assert one.id in {ExceptionOpened.FromString(e.payload).exception.id for e in opened}
    resolved = await payment.kit.events("payment", "payment.exception.resolved.v1")
    told = [ExceptionResolved.FromString(e.payload).exception for e in resolved]
    assert [t.resolution for t in told if t.id == one.id] == [one.resolution]
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_nobody_decides_alone_or_without_the_role(payment: PaymentKit, desk: Desk) -> None:
    _, one = await refused_return(payment, desk)

    async def reason_of(work: Any) -> str:
        with pytest.raises(RemoteError) as caught:
            await work
        return caught.value.remote_reason

    role_missing = "PERMISSION_DENIED"
    assert await reason_of(desk.propose(one, "RETRY", role="desk_checker")) == role_missing
    assert await reason_of(desk.propose(one, "FAIL")) == "FIELD_INVALID"
    assert await reason_of(desk.decide(one)) == "STATE_CONFLICT"
    stale = PaymentException()
    stale.CopyFrom(one)
    one = await desk.propose(one, "RETRY")
    assert await reason_of(desk.propose(stale, "RETRY")) == "VERSION_CONFLICT"
    assert await reason_of(desk.decide(stale)) == "VERSION_CONFLICT"
    assert await reason_of(desk.decide(one, name="ada")) == "MAKER_IS_CHECKER"
    assert await reason_of(desk.decide(one, role="desk_maker")) == role_missing
    assert (await desk.get(one.id)).version == one.version
    await payment.bring_to_rest()
    assert await reason_of(desk.decide(await desk.get(one.id))) == "STATE_CONFLICT"


async def test_an_exception_of_another_world_is_not_seen(payment: PaymentKit, desk: Desk) -> None:
    _, one = await refused_return(payment, desk)
    stub = PaymentServiceStub(payment.kit.channel("operator", "payment"))
    call = call_of_person("ada", "operator")
    principal: Principal = replace(call.principal, mode=type(call.principal.mode).LIVE)
    with bound(replace(call, principal=principal)):
        answer = await stub.ListExceptions(ListExceptionsRequest())
        assert not answer.exceptions
        with pytest.raises(RemoteError):
            await stub.GetException(GetExceptionRequest(exception_id=one.id))
    await payment.bring_to_rest()


async def test_lists_go_page_by_page_in_the_order_of_deadlines(
    payment: PaymentKit, desk: Desk
) -> None:
    ids = [(await refused_return(payment, desk))[1].id for _ in range(3)]
    found: list[str] = []
    token = ""
    while True:
        page = await desk.list(page_size=2, page_token=token)
        assert len(page.exceptions) <= 2
        found += [one.id for one in page.exceptions]
        token = page.next_page_token
        if not token:
            break
    assert found == ids
    await payment.bring_to_rest()
    assert not (await desk.list()).exceptions
    everything = await desk.list(include_resolved=True, page_size=1000)
    assert set(ids) <= {one.id for one in everything.exceptions}
