"""Rules are versions: put in force by one winner, audited, and taken up by every process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from paymesh.routing.v1 import (
    ChooseChannelRequest,
    GetRulesRequest,
    GetRulesResponse,
    PutRulesRequest,
)
from paymesh.type.v1 import Money

import services.routing
from common import context
from common.audit import RoleMissingError, find_break
from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.errors import FieldInvalidError, IdConflictError, VersionConflictError
from services.routing.errors import ChannelNotEligibleError
from services.routing.rulebook import Rulebook
from services.routing.server import RoutingServicer
from services.routing.store import RuleStore

FOLDER = Path(services.routing.__file__).parent
OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator",))
)
PAYMENT_ID = "pay_" + "0" * 26


@dataclass
class Routing:
    """One process's routing."""

    servicer: RoutingServicer
    rulebook: Rulebook

    async def read(self) -> GetRulesResponse:
        """Read the rules as an operator."""
        with context.bound(OPERATOR):
            return await self.servicer.GetRules(GetRulesRequest(), None)  # type: ignore[arg-type]

    async def put(self, request: PutRulesRequest, call: CallContext = OPERATOR) -> int:
        """Put rules in force."""
        with context.bound(call):
            return (await self.servicer.PutRules(request, None)).version  # type: ignore[arg-type]

    async def choose(self, product: str, amount_minor: int = 100, *excluded: str) -> list[str]:
        """Return the ranked channels."""
        request = ChooseChannelRequest(
            payment_id=PAYMENT_ID,
            product=product,
            amount=Money(currency_code="USD", amount_minor=amount_minor),
            excluded_channels=excluded,
        )
        answer = await self.servicer.ChooseChannel(request, None)  # type: ignore[arg-type]
        return [one.channel for one in answer.candidates]


@pytest.fixture
async def pool(new_database: Callable[[], Awaitable[str]]) -> AsyncIterator[Pool]:
    """A schema of its own for each test: versions are counted."""
    url = await prepare_schema(await new_database(), "routing")
    await migrate(url, "routing", {"routing": FOLDER / "migrations"})
    one = await open_pool(url, SessionSettings("routing"), connections_max=4)
    yield one
    await one.close()


async def begin(pool: Pool) -> Routing:
    """Build what wiring would."""
    clock = SystemClock()
    store = RuleStore(pool)
    rulebook = Rulebook(store, clock, reload_seconds=0.02)
    await rulebook.begin(FOLDER / "rules" / "default.toml")
    return Routing(RoutingServicer(store, rulebook, clock), rulebook)


def changed(rules: GetRulesResponse, request_id: str, reason: str = "rest a") -> PutRulesRequest:
    """Return the rules with alipay_a suspended."""
    request = PutRulesRequest(
        request_id=request_id, rules=rules.rules, expected_version=rules.version, reason=reason
    )
    for rule in request.rules:
        if rule.channel == "alipay_a":
            rule.suspended = True
    return request


async def test_empty_installation_begins_with_the_files_rules(pool: Pool) -> None:
    several = await asyncio.gather(*(begin(pool) for _ in range(4)))
    for routing in several:
        rules = await routing.read()
        assert rules.version == 1
        assert len(rules.rules) == 6
    assert set(await several[0].choose("balance")) == {"balance_a", "balance_b"}


async def test_new_rules_reach_every_process(pool: Pool) -> None:
    here, there = await begin(pool), await begin(pool)
    keeping = asyncio.create_task(there.rulebook.run())
    try:
        assert set(await there.choose("qr_pay")) == {"alipay_a", "alipay_b"}
        assert await here.put(changed(await here.read(), "req-1")) == 2
        assert await here.choose("qr_pay") == ["alipay_b"]
        async with asyncio.timeout(10):
            while there.rulebook.rules.version != 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await there.choose("qr_pay") == ["alipay_b"]
        with pytest.raises(ChannelNotEligibleError) as caught:
            await there.choose("qr_pay", 100, "alipay_b")
        assert "alipay_a: suspended" in caught.value.metadata["why"]
    finally:
        keeping.cancel()


async def test_repeating_a_change_answers_as_the_first_time(pool: Pool) -> None:
    routing = await begin(pool)
    request = changed(await routing.read(), "req-1")
    versions = await asyncio.gather(*(routing.put(request) for _ in range(5)))
    assert set(versions) == {2}
    request.rules[0].weight += 1
    with pytest.raises(IdConflictError) as caught:
        await routing.put(request)
    assert caught.value.field == "rules"


async def test_of_two_changes_of_one_version_one_wins(pool: Pool) -> None:
    routing, other = await begin(pool), await begin(pool)
    rules = await routing.read()
    answers = await asyncio.gather(
        routing.put(changed(rules, "req-a")),
        other.put(changed(rules, "req-b")),
        return_exceptions=True,
    )
    assert sorted(isinstance(one, VersionConflictError) for one in answers) == [False, True]
    assert 2 in answers


async def test_changes_are_audited_and_never_altered(pool: Pool) -> None:
    routing = await begin(pool)
    await routing.put(changed(await routing.read(), "req-1", "maintenance of a"))
    async with pool.acquire() as connection:
        rows = await connection.fetch("SELECT actor, reason FROM audit ORDER BY position")
        assert [tuple(row.values()) for row in rows] == [
            ("SERVICE:routing", "the installation's first rules"),
            ("OPERATOR:ann", "maintenance of a"),
        ]
        assert await find_break(connection) is None
        with pytest.raises(asyncpg.PostgresError):
            await connection.execute("UPDATE rule_versions SET reason = 'other'")


async def test_bad_changes_leave_the_rules_as_they_were(pool: Pool) -> None:
    routing = await begin(pool)
    rules = await routing.read()
    request = changed(rules, "req-1")
    request.rules[0].amount_min_minor = request.rules[0].amount_max_minor + 1
    with pytest.raises(FieldInvalidError) as caught:
        await routing.put(request)
    assert caught.value.field == "rules[0].amount_min_minor"
    stale = changed(rules, "req-2")
    stale.expected_version = 7
    with pytest.raises(VersionConflictError):
        await routing.put(stale)
    with pytest.raises(RoleMissingError):
        await routing.put(changed(rules, "req-3"), CallContext())
    assert (await routing.read()).version == 1
