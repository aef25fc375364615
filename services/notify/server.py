"""The servicer of notify: converts, calls a flow, converts back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import grpc.aio
from paymesh.notify.v1 import (
    CreateWebhookEndpointRequest,
    CreateWebhookEndpointResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    ListWebhookDeliveriesRequest,
    ListWebhookDeliveriesResponse,
    ListWebhookEndpointsRequest,
    ListWebhookEndpointsResponse,
    NotifyServiceServicer,
    ResendWebhookRequest,
    ResendWebhookResponse,
)

from common.context import Principal, current
from common.paging import PageTokens, page_size_of
from services.notify.convert import delivery_to_proto, endpoint_to_proto
from services.notify.domain.deliveries import Owner
from services.notify.flows.create_endpoint import EndpointParts, create_endpoint
from services.notify.flows.resend_webhook import resend_webhook
from services.notify.store.deliveries import DeliveryStore
from services.notify.story import list_facts, list_story

# Also for the platform's own people, who see those of all merchants: the contract has no pages.
_ENDPOINTS_MAX: Final = 1000


class NotifyServicer(NotifyServiceServicer):
    """`paymesh.notify.v1.NotifyService`."""

    def __init__(
        self,
        parts: EndpointParts,
        deliveries: DeliveryStore,
        tokens: PageTokens,
        wake: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._deliveries = deliveries
        self._tokens = tokens
        self._wake = wake

    async def CreateWebhookEndpoint(  # noqa: N802 - named by the contract
        self, request: CreateWebhookEndpointRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CreateWebhookEndpointResponse:
        """Register an address."""
        endpoint, secret = await create_endpoint(
            self._parts, request.request_id, request.url, request.types, current()
        )
        return CreateWebhookEndpointResponse(endpoint=endpoint_to_proto(endpoint), secret=secret)

    async def ListWebhookEndpoints(  # noqa: N802 - named by the contract
        self, request: ListWebhookEndpointsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListWebhookEndpointsResponse:
        """List addresses."""
        endpoints = await self._parts.store.list_endpoints(
            _owner(current().principal), _ENDPOINTS_MAX
        )
        return ListWebhookEndpointsResponse(endpoints=[endpoint_to_proto(one) for one in endpoints])

    async def ListWebhookDeliveries(  # noqa: N802 - named by the contract
        self, request: ListWebhookDeliveriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListWebhookDeliveriesResponse:
        """List deliveries, newest first."""
        owner = _owner(current().principal)
        filters = {
            "tenant": owner.tenant_id,
            "mode": owner.mode,
            "merchant": owner.merchant_id,
            "subject": request.subject_id,
        }
        position = self._tokens.read("notify.deliveries", request.page_token, filters)
        after = None
        if position is not None:
            after = (datetime.fromisoformat(str(position[0])), str(position[1]))
        size = page_size_of(request.page_size)
        found = await self._deliveries.list_deliveries(owner, request.subject_id, after, size + 1)
        page = found[:size]
        token = ""
        if len(found) > size:
            last = [page[-1].created_at.isoformat(), page[-1].id]
            token = self._tokens.issue("notify.deliveries", last, filters)
        return ListWebhookDeliveriesResponse(
            deliveries=[delivery_to_proto(one) for one in page], next_page_token=token
        )

    async def ResendWebhook(  # noqa: N802 - named by the contract
        self, request: ResendWebhookRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ResendWebhookResponse:
        """Send a delivery again."""
        delivery = await resend_webhook(
            self._deliveries,
            self._parts.clock,
            self._wake,
            request.request_id,
            request.delivery_id,
            current().principal,
        )
        return ResendWebhookResponse(delivery=delivery_to_proto(delivery))

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._deliveries, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._deliveries, self._tokens, request)


def _owner(principal: Principal) -> Owner:
    return Owner(principal.tenant_id, str(principal.mode), principal.merchant_id)
