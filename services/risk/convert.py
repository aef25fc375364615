"""Domain ↔ contract."""

from __future__ import annotations

from paymesh.risk.v1 import AssessActionRequest, AssessActionResponse, Verdict

from common.money import Money
from services.risk.domain import Action, Decision
from services.risk.rulebook import Hash


def action_from_proto(request: AssessActionRequest, hash_value: Hash) -> Action:
    """Return the action; address and device leave this function as hashes only."""
    personal = {"ip": request.client_ip, "device": request.device_id}
    return Action(
        action_id=request.action_id,
        action=request.action,
        amount=Money(request.amount.currency_code, request.amount.amount_minor),
        product=request.product,
        user_id=request.user_id,
        card_id=request.card_id,
        hashes={name: hash_value(name, value) for name, value in personal.items() if value},
    )


def decision_to_proto(decision: Decision) -> AssessActionResponse:
    """Return a decision as callers see it."""
    return AssessActionResponse(
        verdict=Verdict.Value(f"VERDICT_{decision.verdict}"),
        rules=decision.rules,
        rules_version=decision.rules_version,
        degraded=decision.degraded,
    )
