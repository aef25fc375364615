"""Fee plans: a default, changes by operators only, none of them lost."""

from __future__ import annotations

import asyncio

import pytest
from hosted_services import merchant_call, operator_call
from paymesh.settlement.v1 import FeePlan, GetFeePlanRequest, PutFeePlanRequest
from settlement_kit import SettlementKit

from common.audit import find_break
from common.context import bound
from common.errors import RemoteError


async def find(settlement: SettlementKit) -> FeePlan:
    with bound(merchant_call(settlement.merchant_id)):
        answer = await settlement.trade.GetFeePlan(
            GetFeePlanRequest(merchant_id=settlement.merchant_id)
        )
    assert answer.ttl_seconds > 0
    return answer.plan


def change(settlement: SettlementKit, request_id: str, rate: int, seen: int) -> PutFeePlanRequest:
    return PutFeePlanRequest(
        request_id=request_id,
        merchant_id=settlement.merchant_id,
        plan=FeePlan(rate_ppm=rate, version=seen),
    )


async def put(settlement: SettlementKit, request: PutFeePlanRequest) -> FeePlan:
    with bound(operator_call("operator")):
        return (await settlement.operator.PutFeePlan(request)).plan


async def test_a_merchant_without_a_plan_has_the_default_one(settlement: SettlementKit) -> None:
    assert await find(settlement) == FeePlan(rate_ppm=6000, returned_on_refund=True, version=0)


async def test_changing_a_plan_holds_at_once_and_repeats_get_the_first_answer(
    settlement: SettlementKit,
) -> None:
    first = change(settlement, "first", 5000, 0)
    assert await put(settlement, first) == FeePlan(rate_ppm=5000, version=1)
    assert await put(settlement, change(settlement, "second", 4000, 1)) == FeePlan(
        rate_ppm=4000, version=2
    )
    assert await put(settlement, first) == FeePlan(rate_ppm=5000, version=1)
    assert await find(settlement) == FeePlan(rate_ppm=4000, version=2)
    rows = await settlement.kit.rows(
        "settlement",
        "SELECT actor, action FROM audit WHERE subject = $1",
        f"merchant {settlement.merchant_id}",
    )
    assert [tuple(row.values()) for row in rows] == [("OPERATOR:ada", "fee_plan.put")] * 2
    async with settlement.kit.pools["settlement"].acquire() as connection:
        assert await find_break(connection) is None


async def test_two_changes_of_the_same_version_at_once_make_one(
    settlement: SettlementKit,
) -> None:
    answers = await asyncio.gather(
        *(put(settlement, change(settlement, f"r{i}", 1000 + i, 0)) for i in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, FeePlan) for answer in answers) == 1
    reasons = {answer.remote_reason for answer in answers if isinstance(answer, RemoteError)}
    assert reasons == {"VERSION_CONFLICT"}


async def test_repeating_a_change_with_other_content_names_the_field(
    settlement: SettlementKit,
) -> None:
    await put(settlement, change(settlement, "r", 5000, 0))
    with pytest.raises(RemoteError) as caught:
        await put(settlement, change(settlement, "r", 5001, 0))
    assert (caught.value.remote_reason, caught.value.field) == ("ID_CONFLICT", "plan.rate_ppm")


async def test_changing_a_plan_is_for_operators(settlement: SettlementKit) -> None:
    request = change(settlement, "r", 0, 0)
    with bound(merchant_call(settlement.merchant_id)), pytest.raises(RemoteError) as caught:
        await settlement.edge.PutFeePlan(request)
    assert caught.value.remote_reason == "PERMISSION_DENIED"
    with bound(operator_call()), pytest.raises(RemoteError) as caught:
        await settlement.operator.PutFeePlan(request)
    assert caught.value.remote_reason == "PERMISSION_DENIED"
    assert (await find(settlement)).rate_ppm == 6000
