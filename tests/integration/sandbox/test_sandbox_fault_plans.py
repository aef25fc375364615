"""Plans of faults over the sandbox's contract: put, told, counted, refused."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from outside_parties import Channels, fault, misbehave, outcome_of, pay_request, question_of
from paymesh.sandbox.v1 import (
    FAULT_KIND_ANSWER_LOST_BEFORE,
    FAULT_KIND_DECLINE,
    FAULT_KIND_OUTAGE,
    FAULT_KIND_SLOW,
    FaultCount,
    FaultRule,
    GetFaultPlanRequest,
    GetFaultPlanResponse,
    PutFaultPlanRequest,
    SandboxServiceStub,
    add_SandboxServiceServicer_to_server,
)

from common.errors import FieldInvalidError
from services.channel.results import ChannelOutcomeUnknownError, ChannelResult
from services.sandbox.faults.plan import FaultKind
from services.sandbox.server import SandboxServicer
from services.sandbox.serving import Sandbox
from services.sandbox.store import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
async def stub(sandbox: Sandbox) -> AsyncIterator[SandboxServiceStub]:
    """The sandbox's contract over plain gRPC."""
    server = grpc.aio.server()
    add_SandboxServiceServicer_to_server(SandboxServicer(sandbox), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield SandboxServiceStub(channel)
    await server.stop(None)


async def test_putting_a_plan_replaces_the_one_before(
    channels: Channels, stub: SandboxServiceStub
) -> None:
    assert await stub.GetFaultPlan(GetFaultPlanRequest()) == GetFaultPlanResponse()
    decline = FaultRule(
        rule_id="no-money",
        kind=FAULT_KIND_DECLINE,
        party="unionpay",
        merchant_number="700000000000001",
        verb="pay",
        amount_minor=500,
        rate_ppm=1_000_000,
        hits_max=2,
    )
    slow = FaultRule(rule_id="slow", kind=FAULT_KIND_SLOW, rate_ppm=1, delay_ms=20)
    await stub.PutFaultPlan(PutFaultPlanRequest(seed=-(2**63), rules=[decline, slow]))
    for _ in range(3):
        await outcome_of(channels.guard("unionpay_a").pay(pay_request(500)))
    told = await stub.GetFaultPlan(GetFaultPlanRequest())
    assert told == GetFaultPlanResponse(
        seed=-(2**63),
        rules=[decline, slow],
        counts=[
            FaultCount(rule_id="no-money", kind=FAULT_KIND_DECLINE, hits=2),
            FaultCount(rule_id="slow", kind=FAULT_KIND_SLOW),
        ],
    )
    # Putting the same again begins to count anew.
    await stub.PutFaultPlan(PutFaultPlanRequest(seed=3, rules=[decline]))
    told = await stub.GetFaultPlan(GetFaultPlanRequest())
    assert (told.seed, [count.hits for count in told.counts]) == (3, [0])
    await stub.PutFaultPlan(PutFaultPlanRequest())
    assert await stub.GetFaultPlan(GetFaultPlanRequest()) == GetFaultPlanResponse()


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        (FaultRule(rule_id="a"), "rules[0].kind"),
        (FaultRule(rule_id="a", kind=99), "rules[0].kind"),  # type: ignore[arg-type]
        (FaultRule(rule_id="a", kind=FAULT_KIND_OUTAGE), "rules[0].delay_ms"),
        (FaultRule(rule_id="a", kind=FAULT_KIND_DECLINE, party="x"), "rules[0].party"),
        (FaultRule(rule_id="a", kind=FAULT_KIND_DECLINE, verb="query"), "rules[0].verb"),
    ],
)
async def test_putting_a_plan_that_makes_no_sense_is_refused(
    sandbox: Sandbox, rule: FaultRule, field: str
) -> None:
    servicer = SandboxServicer(sandbox)
    good = PutFaultPlanRequest(
        rules=[FaultRule(rule_id="good", kind=FAULT_KIND_ANSWER_LOST_BEFORE)]
    )
    await servicer.PutFaultPlan(good, None)  # type: ignore[arg-type]
    with pytest.raises(FieldInvalidError) as refused:
        await servicer.PutFaultPlan(
            PutFaultPlanRequest(rules=[rule]),
            None,  # type: ignore[arg-type]
        )
    assert refused.value.field == field
    plan, _ = await sandbox.conduct.read_plan()
    assert [one.rule_id for one in plan.rules] == ["good"]


async def test_emptying_the_plan_ends_an_outage(channels: Channels, sandbox: Sandbox) -> None:
    guard, question = channels.guard("unionpay_a"), question_of(pay_request())
    await misbehave(sandbox, fault(FaultKind.OUTAGE, delay_ms=600_000))
    for _ in range(2):
        said = await outcome_of(guard.query(question))
        assert isinstance(said, ChannelOutcomeUnknownError)
    await misbehave(sandbox)
    assert isinstance(await outcome_of(guard.query(question)), ChannelResult)


async def test_file_from_before_faults_is_taken_over(tmp_path: Path) -> None:
    """What an installation remembered before there were faults is not lost by them."""
    file = tmp_path / "sandbox.sqlite"
    db = sqlite3.connect(file)
    db.executescript((ROOT / "services/sandbox/schema.sql").read_text())
    db.execute(
        "INSERT INTO notices (party, merchant_number, url, fields, next_at)"
        " VALUES ('alipay', '1', 'http://x', '{}', 5.0)"
    )
    db.commit()
    db.close()
    for _ in range(2):
        store = Store(file)
        ((owed, follows),) = await store.run(
            lambda db: db.execute("SELECT signed_wrongly, follows FROM notices").fetchall()
        )
        assert (owed, follows) == (0, None)
        await store.close()
