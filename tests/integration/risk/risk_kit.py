"""The risk service without its surface, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from paymesh.risk.v1 import AssessActionRequest, AssessActionResponse, ResolveReservationRequest
from paymesh.type.v1 import Money

import services.risk
from common import context
from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.db.types import Record
from common.ids import IdFactory
from common.paging import PageTokens
from common.redis import RedisPipeline, open_redis
from services.risk.counters import Counters
from services.risk.flows.parts import Parts, decision_lane
from services.risk.flows.resolve_reservations import tell_counters
from services.risk.rulebook import Rulebook, hasher
from services.risk.server import RiskServicer
from services.risk.store import RiskStore

FOLDER = Path(services.risk.__file__).parent
PAYMENT = CallContext(
    principal=Principal(merchant_id="mer_1", actor_type=ActorType.MERCHANT, actor_id="key_1"),
    biz_trace_id="biz_story",
)
RULES = """
[reservation]
lifetime_seconds = 60

[degraded]
pay = 100

[[amounts]]
code = "pay_amount"
actions = ["pay"]
amount_max_minor = 1_000

[[counters]]
code = "user_daily_count"
actions = ["pay"]
dimension = "user"
measure = "count"
window = "day"
limit = 3

[[counters]]
code = "card_daily_sum"
actions = ["pay"]
dimension = "card"
measure = "sum"
window = "day"
limit = 1_000

[[counters]]
code = "ip_minute_count"
actions = ["pay"]
dimension = "ip"
measure = "count"
window = 60
counts = "attempts"
limit = 3

[blocked]
devices = ["stolen phone"]
"""


class NoonClock(SystemClock):
    """A clock that begins at noon of the business zone, so that no test crosses midnight."""

    def __init__(self) -> None:
        noon = datetime.now(UTC).astimezone(ZoneInfo("Asia/Shanghai")).replace(hour=12)
        self.ahead = noon.astimezone(UTC) - datetime.now(UTC)

    def now(self) -> datetime:
        """Return the shifted time."""
        return datetime.now(UTC) + self.ahead

    def advance(self, **time: float) -> None:
        """Let time pass."""
        self.ahead += timedelta(**time)


@dataclass
class RiskKit:
    """The service's parts, and short words for tests."""

    parts: Parts
    pool: Pool
    redis: RedisPipeline
    servicer: RiskServicer
    clock: NoonClock
    rules_file: Path

    async def assess(
        self, amount_minor: int = 10, call: CallContext = PAYMENT, **fields: Any
    ) -> AssessActionResponse:
        """Assess one action."""
        values: dict[str, Any] = {"action_id": new_id(), "action": "pay", **fields}
        request = AssessActionRequest(
            amount=Money(currency_code="USD", amount_minor=amount_minor), **values
        )
        with context.bound(call):
            return await self.servicer.AssessAction(request, None)  # type: ignore[arg-type]

    async def resolve(self, action_id: str, *, confirmed: bool) -> None:
        """Resolve one reservation, and let the counters hear of it."""
        request = ResolveReservationRequest(action_id=action_id, confirmed=confirmed)
        with context.bound(PAYMENT):
            await self.servicer.ResolveReservation(request, None)  # type: ignore[arg-type]
        while await tell_counters(self.parts):
            pass

    async def rows(self, statement: str, *arguments: object) -> list[Record]:
        """Read rows."""
        async with self.pool.acquire() as connection:
            return await connection.fetch(statement, *arguments)


_ids = IdFactory(SystemClock())


def new_id(prefix: str = "pay") -> str:
    """Return an id that nobody has used."""
    return _ids.new(prefix)


@asynccontextmanager
async def running(
    pool: Pool, redis_url: str, namespace: str, rules_file: Path
) -> AsyncIterator[RiskKit]:
    """Build what wiring would."""
    clock, hash_value = NoonClock(), hasher("test")
    redis = open_redis(redis_url, namespace=namespace)
    store = RiskStore(pool)
    rulebook = Rulebook(store, clock, rules_file, hash_value, reload_seconds=0.02)
    await rulebook.load()
    parts = Parts(
        store=store,
        counters=Counters(redis),
        rulebook=rulebook,
        decisions=decision_lane(store, 64),
        clock=clock,
        zone=ZoneInfo("Asia/Shanghai"),
        hash_value=hash_value,
    )
    servicer = RiskServicer(parts, PageTokens("test"))
    yield RiskKit(parts, pool, redis, servicer, clock, rules_file)
    await parts.decisions.drain()
    await redis.close()


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    """The module's schema `risk`."""
    url = await prepare_schema(database_url, "risk")
    await migrate(url, "risk", {"risk": FOLDER / "migrations"})
    one = await open_pool(url, SessionSettings("risk"), connections_max=4)
    yield one
    await one.close()


@pytest.fixture
def rules_file(tmp_path: Path) -> Path:
    """Small limits."""
    file = tmp_path / "rules.toml"
    file.write_text(RULES)
    return file


@pytest.fixture
async def kit(
    pool: Pool, redis_url: str, redis_prefix: str, rules_file: Path
) -> AsyncIterator[RiskKit]:
    """One service."""
    async with running(pool, redis_url, redis_prefix, rules_file) as one:
        yield one


@pytest.fixture
async def other(
    pool: Pool, redis_url: str, redis_prefix: str, rules_file: Path
) -> AsyncIterator[RiskKit]:
    """The same service in another process."""
    async with running(pool, redis_url, redis_prefix, rules_file) as one:
        yield one


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds; fails after a bound."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the other side is a server
            await asyncio.sleep(0.01)
