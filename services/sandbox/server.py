"""The servicer of `paymesh.sandbox.v1`: the parties' own ledger, and the plan of their faults."""

from __future__ import annotations

from typing import Any, Final

import grpc.aio
from paymesh.sandbox.v1 import (
    FaultCount,
    GetFaultPlanRequest,
    GetFaultPlanResponse,
    ListMovementsRequest,
    ListMovementsResponse,
    PutFaultPlanRequest,
    PutFaultPlanResponse,
    SandboxServiceServicer,
)

from common.errors import PageTokenInvalidError
from services.sandbox.convert import (
    fault_kind_to_proto,
    fault_rule_from_proto,
    fault_rule_to_proto,
    movement_to_proto,
)
from services.sandbox.faults.plan import FaultPlan
from services.sandbox.movements import list_movements
from services.sandbox.serving import Sandbox

PAGE_SIZE_DEFAULT: Final = 1000


class SandboxServicer(SandboxServiceServicer):
    """Lists what the parties did, and makes them misbehave."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._store = sandbox.store
        self._conduct = sandbox.conduct

    async def ListMovements(  # noqa: N802 - the contract's name
        self, request: ListMovementsRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListMovementsResponse:
        """Return one page; its token is the number of the last movement."""
        after = 0
        if request.page_token:
            if not (request.page_token.isascii() and request.page_token.isdigit()):
                raise PageTokenInvalidError
            after = int(request.page_token)
        limit = request.page_size or PAGE_SIZE_DEFAULT
        party = request.party
        found = await self._store.run(
            lambda db: list_movements(db, after=after, limit=limit + 1, party=party)
        )
        page = found[:limit]
        return ListMovementsResponse(
            movements=[movement_to_proto(one) for one in page],
            next_page_token=str(page[-1].movement_id) if len(found) > limit else "",
        )

    async def PutFaultPlan(  # noqa: N802 - the contract's name
        self, request: PutFaultPlanRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> PutFaultPlanResponse:
        """Put a plan in force, on disk when this returns."""
        rules = [fault_rule_from_proto(rule, number) for number, rule in enumerate(request.rules)]
        await self._conduct.put_plan(FaultPlan(request.seed, tuple(rules)))
        return PutFaultPlanResponse()

    async def GetFaultPlan(  # noqa: N802 - the contract's name
        self, _request: GetFaultPlanRequest, _context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetFaultPlanResponse:
        """Return the plan in force with its counts."""
        plan, hits = await self._conduct.read_plan()
        return GetFaultPlanResponse(
            seed=plan.seed,
            rules=[fault_rule_to_proto(rule) for rule in plan.rules],
            counts=[
                FaultCount(rule_id=rule.rule_id, kind=fault_kind_to_proto(rule.kind), hits=number)
                for rule, number in zip(plan.rules, hits, strict=True)
            ],
        )
