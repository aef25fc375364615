"""Tells the counters what became of actions: first a row, then Redis, so that nothing is lost."""

from __future__ import annotations

import asyncio
import logging

from common.backoff import Backoff
from common.context import CallContext
from common.errors import NotFoundError, UnavailableError
from services.risk.domain import Verdict, uses_of
from services.risk.flows.parts import Parts, with_hashes
from services.risk.store import Resolution

_log = logging.getLogger(__name__)
_PER_ROUND_MAX = 500


async def resolve_reservation(
    parts: Parts, action_id: str, call: CallContext, *, confirmed: bool
) -> None:
    """Note what became of one action; repeats change nothing.

    Raises:
        NotFoundError: no such action was assessed in the caller's world.
    """
    principal = call.principal
    world = (principal.tenant_id, str(principal.mode))
    decision = (await parts.store.find_decisions([action_id])).get(action_id)
    if decision is None or (decision.tenant_id, decision.mode) != world:
        raise NotFoundError(resource="action", id=action_id)
    resolution = Resolution(
        action_id=action_id,
        confirmed=confirmed,
        tenant_id=decision.tenant_id,
        mode=decision.mode,
        biz_trace_id=decision.biz_trace_id,
        cause=call.causation_id,
    )
    await parts.store.resolve(resolution, parts.clock.now())
    parts.news.set()


async def tell_counters(parts: Parts) -> int:
    """Tell the counters of the oldest resolutions that wait, bounded; return how many.

    Raises:
        UnavailableError: Redis is away; what it was told of before is noted.
    """
    waiting = await parts.store.find_waiting(_PER_ROUND_MAX)
    if not waiting:
        return 0
    answers = await asyncio.gather(
        *(_tell(parts, resolution) for resolution in waiting), return_exceptions=True
    )
    told = [one for one, answer in zip(waiting, answers, strict=True) if answer is None]
    if told:
        await parts.store.forget_waiting(told)
    for answer in answers:
        if answer is not None:
            raise answer
    return len(told)


async def keep_telling(parts: Parts, poll_seconds: float) -> None:
    """Tell the counters whatever comes, until cancelled."""
    backoff, failures = Backoff(first_seconds=0.2, longest_seconds=poll_seconds), 0
    while True:
        parts.news.clear()
        try:
            count = await tell_counters(parts)
        except UnavailableError:
            failures += 1
            await asyncio.sleep(backoff.pause(failures))
            continue
        failures = 0
        if count == 0:
            await _wait(parts.news, poll_seconds)


async def _tell(parts: Parts, resolution: Resolution) -> None:
    """Tell of one; what Redis has forgotten (or never knew) is counted from the decision's row."""
    world, action_id = (resolution.tenant_id, resolution.mode), resolution.action_id
    now, confirmed = parts.clock.now(), resolution.confirmed
    if await parts.counters.resolve(world, action_id, now, confirmed=confirmed) or not confirmed:
        return
    decision = (await parts.store.find_decisions([action_id])).get(action_id)
    if decision is None or decision.verdict is not Verdict.PASS:
        return
    action = with_hashes(decision.action, parts.hash_value)
    uses = uses_of(parts.rulebook.rules, action, decision.decided_at, parts.zone)
    now_ms = int(now.timestamp() * 1000)
    uses = [use for use in uses if use.counter_ends_ms > now_ms]
    await parts.counters.reserve(world, action_id, uses, now, forced=True)
    await parts.counters.resolve(world, action_id, now, confirmed=True)


async def _wait(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return
