"""When Redis is away the stated policy decides and says so, and nothing that happened is lost."""

from __future__ import annotations

from pathlib import Path

from paymesh.risk.v1 import VERDICT_BLOCK, VERDICT_PASS
from risk_kit import RiskKit, new_id, running, until

from common.db.pool import Pool
from common.errors import UnavailableError
from services.risk.domain import DEGRADED
from services.risk.flows.resolve_reservations import tell_counters
from services.risk.store import Resolution
from tests.conftest import StartServers


async def tell(kit: RiskKit) -> bool:
    """Tell the counters what waits; False while they are away."""
    try:
        await tell_counters(kit.parts)
    except UnavailableError:
        return False
    return True


async def test_killed_redis_leaves_the_policy_and_loses_no_count(
    pool: Pool, rules_file: Path, start_servers: StartServers
) -> None:
    servers = await start_servers("redis")
    async with running(pool, servers.redis_url, "", rules_file) as kit:
        user, before = new_id("usr"), new_id()
        answer = await kit.assess(action_id=before, user_id=user)
        assert (answer.verdict, answer.degraded) == (VERDICT_PASS, False)

        await servers.kill("redis")
        small, large = new_id(), new_id()
        for _ in range(2):
            answer = await kit.assess(100, action_id=small, user_id=user)
            assert (answer.verdict, answer.degraded) == (VERDICT_PASS, True)
            answer = await kit.assess(101, action_id=large, user_id=user)
            assert (answer.verdict, answer.degraded) == (VERDICT_BLOCK, True)
            assert list(answer.rules) == [DEGRADED]
        # What counters are not needed for is judged as ever.
        answer = await kit.assess(1001, user_id=user)
        assert (list(answer.rules), answer.degraded) == (["pay_amount"], False)
        kept = await kit.parts.store.find_decisions([small, large])
        assert (kept[small].verdict, kept[small].degraded) == ("PASS", True)
        assert (kept[large].verdict, kept[large].degraded) == ("BLOCK", True)
        assert (await kit.assess(action_id=before, user_id=user)).verdict == VERDICT_PASS

        # Both happen while the counters are away; their ends wait in rows.
        for action_id in (before, small):
            end = Resolution(action_id=action_id, confirmed=True, tenant_id="default", mode="LIVE")
            await kit.parts.store.resolve(end, kit.clock.now())
        assert not await tell(kit)
        assert len(await kit.parts.store.find_waiting(10)) == 2

        await servers.restart("redis")
        await until(kit.redis.ping)
        await kit.redis.execute("FLUSHALL")  # its memory is lost, too
        await until(lambda: tell(kit))
        assert await kit.parts.store.find_waiting(10) == []
        # The two are counted although Redis never heard of one and lost the other: one place left.
        assert (await kit.assess(user_id=user)).verdict == VERDICT_PASS
        assert (await kit.assess(user_id=user)).verdict == VERDICT_BLOCK
        # Verdicts that were given stay, whatever the counters would say now.
        assert (await kit.assess(101, action_id=large, user_id=user)).verdict == VERDICT_BLOCK
        assert (await kit.assess(100, action_id=small, user_id=user)).verdict == VERDICT_PASS
