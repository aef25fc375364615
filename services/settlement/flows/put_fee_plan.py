"""An operator changes what a merchant pays, for orders made from now on."""

from __future__ import annotations

from common.audit import require_role
from common.clock import Clock
from common.context import CallContext
from services.settlement.domain import FeePlan
from services.settlement.store import SettlementStore


async def put_fee_plan(
    store: SettlementStore,
    clock: Clock,
    merchant_id: str,
    plan: FeePlan,
    request_id: str,
    call: CallContext,
) -> FeePlan:
    """Change a merchant's plan and note who did it; return the plan after it.

    Raises:
        RoleMissingError: the caller is no operator.
        IdConflictError, VersionConflictError: see `SettlementStore.put_fee_plan`.
    """
    role = require_role(call.principal, "operator")
    return await store.put_fee_plan(merchant_id, plan, request_id, call, role, clock.now())
