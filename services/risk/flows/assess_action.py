"""Judges one action, reserves what it uses of the limits, and keeps the verdict."""

from __future__ import annotations

from common.context import CallContext
from common.errors import AmountOutOfRangeError, IdConflictError, UnavailableError
from common.money import AMOUNT_MINOR_MAX
from common.telemetry import metrics
from services.risk.domain import (
    Action,
    Decision,
    Verdict,
    action_differs,
    judge_alone,
    judge_degraded,
    uses_of,
)
from services.risk.flows.parts import Parts, with_hashes
from services.risk.store import Resolution

_VERDICTS = metrics.counter("paymesh.risk.verdicts", "Verdicts, by action")


async def assess_action(parts: Parts, action: Action, call: CallContext) -> Decision:
    """Return the decision that stands under the action's id: a repeat gets the first one.

    Without counters the stated policy decides by action and amount, and the row says so.

    Raises:
        AmountOutOfRangeError: nothing to be judged.
        IdConflictError: the id was used for another action.
    """
    if not 0 < action.amount.amount_minor <= AMOUNT_MINOR_MAX:
        raise AmountOutOfRangeError(field="amount.amount_minor")
    action = with_hashes(action, parts.hash_value)
    principal = call.principal
    world = (principal.tenant_id, str(principal.mode))
    rules, now = parts.rulebook.rules, parts.clock.now()
    codes, is_degraded = judge_alone(rules, action), False
    if not codes:
        try:
            uses = uses_of(rules, action, now, parts.zone)
            codes = await parts.counters.reserve(world, action.action_id, uses, now)
        except UnavailableError:
            codes, is_degraded = judge_degraded(rules, action), True
    kept = await parts.decisions.submit(
        Decision(
            action=action,
            tenant_id=principal.tenant_id,
            mode=str(principal.mode),
            merchant_id=principal.merchant_id,
            actor=principal.actor,
            biz_trace_id=call.biz_trace_id,
            verdict=Verdict.BLOCK if codes else Verdict.PASS,
            rules=codes,
            rules_version=rules.version,
            degraded=is_degraded,
            decided_at=now,
        )
    )
    decision = kept.decision
    if (decision.tenant_id, decision.mode, decision.merchant_id) != (
        *world,
        principal.merchant_id,
    ):
        raise IdConflictError(field="action_id", id=action.action_id)
    differs = action_differs(decision.action, action)
    if differs:
        raise IdConflictError(field=differs, id=action.action_id)
    if decision.verdict is Verdict.BLOCK and not codes:
        # The counters had forgotten the first answer and reserved anew: that is given back.
        await _release(parts, decision)
    _VERDICTS.add(1, {"action": action.action, "verdict": decision.verdict})
    return decision


async def _release(parts: Parts, decision: Decision) -> None:
    resolution = Resolution(
        action_id=decision.action.action_id,
        confirmed=False,
        tenant_id=decision.tenant_id,
        mode=decision.mode,
        biz_trace_id=decision.biz_trace_id,
        cause="verdict was BLOCK",
    )
    await parts.store.resolve(resolution, parts.clock.now())
    parts.news.set()
