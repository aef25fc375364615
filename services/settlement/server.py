"""The servicer of settlement: converts, calls a flow, converts back."""

from __future__ import annotations

from datetime import date
from typing import Any

import grpc.aio
from paymesh.settlement.v1 import (
    GetFeePlanRequest,
    GetFeePlanResponse,
    ListClearingTotalsRequest,
    ListClearingTotalsResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    PutFeePlanRequest,
    PutFeePlanResponse,
    SettlementServiceServicer,
)

from common.clock import Clock
from common.context import ActorType, current
from common.errors import FieldInvalidError, NotFoundError
from common.paging import PageTokens
from services.settlement.config import SettlementSettings
from services.settlement.convert import (
    fee_plan_from_proto,
    fee_plan_to_proto,
    total_to_proto,
)
from services.settlement.domain import FeePlan
from services.settlement.flows.put_fee_plan import put_fee_plan
from services.settlement.store import SettlementStore
from services.settlement.story import list_facts, list_story

Context = grpc.aio.ServicerContext[Any, Any]


class SettlementServicer(SettlementServiceServicer):
    """`paymesh.settlement.v1.SettlementService`."""

    def __init__(
        self,
        store: SettlementStore,
        clock: Clock,
        settings: SettlementSettings,
        tokens: PageTokens,
    ) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._tokens = tokens
        self._default = FeePlan(settings.default_rate_ppm, settings.default_returned_on_refund)

    async def GetFeePlan(  # noqa: N802 - named by the contract
        self, request: GetFeePlanRequest, context: Context
    ) -> GetFeePlanResponse:
        """Read what a merchant pays."""
        principal = current().principal
        plan = await self._store.find_fee_plan(
            principal.tenant_id, principal.mode, request.merchant_id
        )
        return GetFeePlanResponse(
            plan=fee_plan_to_proto(plan or self._default),
            ttl_seconds=self._settings.plan_ttl_seconds,
        )

    async def PutFeePlan(  # noqa: N802 - named by the contract
        self, request: PutFeePlanRequest, context: Context
    ) -> PutFeePlanResponse:
        """Change what a merchant pays."""
        plan = await put_fee_plan(
            self._store,
            self._clock,
            request.merchant_id,
            fee_plan_from_proto(request.plan),
            request.request_id,
            current(),
        )
        return PutFeePlanResponse(plan=fee_plan_to_proto(plan))

    async def ListClearingTotals(  # noqa: N802 - named by the contract
        self, request: ListClearingTotalsRequest, context: Context
    ) -> ListClearingTotalsResponse:
        """Sum a merchant's entries."""
        principal = current().principal
        is_insider = principal.actor_type in (ActorType.SERVICE, ActorType.OPERATOR)
        if not is_insider and principal.merchant_id != request.merchant_id:
            raise NotFoundError(resource="merchant", id=request.merchant_id)
        totals = await self._store.list_totals(
            request.merchant_id,
            principal.tenant_id,
            principal.mode,
            _date(request.from_on, "from_on"),
            _date(request.until_on, "until_on"),
        )
        return ListClearingTotalsResponse(totals=[total_to_proto(total) for total in totals])

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: Context
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._store, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: Context
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._store, self._tokens, request)


def _date(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise FieldInvalidError(field=field, rule="is no date") from None
