"""The counters behind the limits, in Redis: one script judges and reserves, one resolves.

Every key has the same hash tag, so that one script may touch the counters of a user, a card and an
address at once on a cluster; one shard then counts for risk, at some hundred thousand steps a
second.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from common.redis import Argument, RedisPipeline, Script
from services.risk.domain import Use

_FOLDER: Final = Path(__file__).parent / "scripts"
_RESERVE: Final = Script((_FOLDER / "reserve.lua").read_text(encoding="utf-8"))
_RESOLVE: Final = Script((_FOLDER / "resolve.lua").read_text(encoding="utf-8"))
_TAG: Final = "{risk}"

# Longer than the longest window (a day) and the longest way of an event; later the decision's row
# is all there is, and the windows it counted in have ended.
_ACTION_LIFE: Final = timedelta(days=2)


class Counters:
    """Reservations of one installation."""

    def __init__(self, redis: RedisPipeline) -> None:
        self._redis = redis

    async def reserve(
        self,
        world: tuple[str, str],
        action_id: str,
        uses: Sequence[Use],
        now: datetime,
        *,
        forced: bool = False,
    ) -> tuple[str, ...]:
        """Reserve all uses or none; return the codes of the limits that would be exceeded.

        `world` is tenant and mode. A repeat gets the first answer. `forced` counts whatever the
        limits say: it has happened.

        Raises:
            UnavailableError: Redis is away; perhaps it was reserved all the same.
        """
        keys = [self._action_key(world, action_id)]
        life_ms = int(_ACTION_LIFE.total_seconds() * 1000)
        arguments: list[Argument] = [_milliseconds(now), action_id, life_ms, int(forced)]
        for use in uses:
            name = self._redis.key(_TAG, "count", *world, use.counter)
            keys += [f"{name}:entries", f"{name}:total"]
            arguments += [
                use.code,
                use.add,
                use.limit,
                use.held_until_ms,
                use.kept_until_ms,
                use.counter_ends_ms,
            ]
        answer: bytes = await self._redis.run_script(_RESERVE, keys, arguments)
        verdict, _, codes = answer.decode().partition(":")
        return () if verdict == "PASS" else tuple(codes.split(","))

    async def resolve(
        self, world: tuple[str, str], action_id: str, now: datetime, *, confirmed: bool
    ) -> bool:
        """Confirm or release what an action has reserved; False when Redis knows nothing of it.

        Raises:
            UnavailableError: Redis is away; try again.
        """
        key = self._action_key(world, action_id)
        arguments: list[Argument] = [_milliseconds(now), action_id, int(confirmed)]
        return bool(await self._redis.run_script(_RESOLVE, [key], arguments))

    def _action_key(self, world: tuple[str, str], action_id: str) -> str:
        return self._redis.key(_TAG, "action", *world, action_id)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
