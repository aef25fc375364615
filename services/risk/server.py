"""The servicer of risk: converts, calls a flow, converts back."""

from __future__ import annotations

from typing import Any

import grpc
from paymesh.risk.v1 import (
    AssessActionRequest,
    AssessActionResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    ResolveReservationRequest,
    ResolveReservationResponse,
    RiskServiceServicer,
)

from common.context import current
from common.paging import PageTokens
from services.risk.convert import action_from_proto, decision_to_proto
from services.risk.flows.assess_action import assess_action
from services.risk.flows.parts import Parts
from services.risk.flows.resolve_reservations import resolve_reservation
from services.risk.story import list_facts, list_story

Context = grpc.aio.ServicerContext[Any, Any]


class RiskServicer(RiskServiceServicer):
    """`paymesh.risk.v1.RiskService`."""

    def __init__(self, parts: Parts, tokens: PageTokens) -> None:
        self._parts = parts
        self._tokens = tokens

    async def AssessAction(  # noqa: N802 - named by the contract
        self, request: AssessActionRequest, context: Context
    ) -> AssessActionResponse:
        """Judge an action."""
        action = action_from_proto(request, self._parts.hash_value)
        return decision_to_proto(await assess_action(self._parts, action, current()))

    async def ResolveReservation(  # noqa: N802 - named by the contract
        self, request: ResolveReservationRequest, context: Context
    ) -> ResolveReservationResponse:
        """Confirm or release what an action has reserved."""
        await resolve_reservation(
            self._parts, request.action_id, current(), confirmed=request.confirmed
        )
        return ResolveReservationResponse()

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: Context
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._parts.store, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: Context
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._parts.store, self._tokens, request)
