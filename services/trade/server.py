"""The servicer of trade: converts, calls a flow, converts back."""

from __future__ import annotations

from typing import Any

import grpc.aio
from paymesh.trade.v1 import (
    ClaimOrderRequest,
    ClaimOrderResponse,
    CloseOrderRequest,
    CloseOrderResponse,
    CreateOrderRequest,
    CreateOrderResponse,
    CreateRefundRequest,
    CreateRefundResponse,
    GetOrderRequest,
    GetOrderResponse,
    GetRefundRequest,
    GetRefundResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListOrdersRequest,
    ListOrdersResponse,
    ListStoryRequest,
    ListStoryResponse,
    TradeServiceServicer,
)

from common.context import current
from common.errors import NotFoundError
from common.paging import PageTokens, page_size_of
from services.trade.convert import new_order_from_proto, order_to_proto, refund_to_proto
from services.trade.flows.ask_on_read import Readers
from services.trade.flows.claim_order import claim_order
from services.trade.flows.close_order import close_order
from services.trade.flows.create_order import create_order
from services.trade.flows.create_refund import NewRefund, create_refund
from services.trade.flows.parts import Parts, may_see, visible_order
from services.trade.store.facts import FactStore
from services.trade.story import list_facts, list_story

Context = grpc.aio.ServicerContext[Any, Any]


class TradeServicer(TradeServiceServicer):
    """`paymesh.trade.v1.TradeService`."""

    def __init__(
        self, parts: Parts, facts: FactStore, readers: Readers, tokens: PageTokens
    ) -> None:
        self._parts = parts
        self._readers = readers
        self._facts = facts
        self._tokens = tokens

    async def CreateOrder(  # noqa: N802 - named by the contract
        self, request: CreateOrderRequest, context: Context
    ) -> CreateOrderResponse:
        """Make an order."""
        order = await create_order(self._parts, new_order_from_proto(request), current())
        return CreateOrderResponse(order=order_to_proto(order))

    async def GetOrder(  # noqa: N802 - named by the contract
        self, request: GetOrderRequest, context: Context
    ) -> GetOrderResponse:
        """Read an order."""
        order = await visible_order(self._parts, request.order_id, current().principal)
        # Payment reads an order to pay it, and knows its payments best itself.
        if current().caller != "payment":
            self._readers.note_order(order)
        return GetOrderResponse(order=order_to_proto(order))

    async def ListOrders(  # noqa: N802 - named by the contract
        self, request: ListOrdersRequest, context: Context
    ) -> ListOrdersResponse:
        """List the merchant's orders, newest first."""
        principal = current().principal
        filters = {
            "tenant": principal.tenant_id,
            "mode": principal.mode,
            "merchant": principal.merchant_id,
            "number": request.merchant_order_no,
        }
        position = self._tokens.read("trade.orders", request.page_token, filters)
        size = page_size_of(request.page_size)
        orders = await self._parts.orders.list_orders(
            principal.merchant_id,
            principal.tenant_id,
            principal.mode,
            "" if position is None else str(position[0]),
            request.merchant_order_no,
            size + 1,
        )
        token = ""
        if len(orders) > size:
            token = self._tokens.issue("trade.orders", [orders[size - 1].id], filters)
        return ListOrdersResponse(
            orders=[order_to_proto(order) for order in orders[:size]], next_page_token=token
        )

    async def CloseOrder(  # noqa: N802 - named by the contract
        self, request: CloseOrderRequest, context: Context
    ) -> CloseOrderResponse:
        """Close an order that nobody has paid."""
        order = await close_order(self._parts, request.order_id, request.request_id, current())
        return CloseOrderResponse(order=order_to_proto(order))

    async def CreateRefund(  # noqa: N802 - named by the contract
        self, request: CreateRefundRequest, context: Context
    ) -> CreateRefundResponse:
        """Give money back."""
        asked = NewRefund(
            request_id=request.request_id,
            order_id=request.order_id,
            merchant_refund_no=request.merchant_refund_no,
            currency_code=request.amount.currency_code,
            amount_minor=request.amount.amount_minor,
            reason=request.reason,
        )
        refund = await create_refund(self._parts, asked, current())
        return CreateRefundResponse(refund=refund_to_proto(refund))

    async def GetRefund(  # noqa: N802 - named by the contract
        self, request: GetRefundRequest, context: Context
    ) -> GetRefundResponse:
        """Read a refund."""
        refund = (await self._parts.refunds.find_refunds([request.refund_id]))[0]
        if refund is None or not may_see(current().principal, refund):
            raise NotFoundError(resource="refund", id=request.refund_id)
        self._readers.note_refund(refund)
        return GetRefundResponse(refund=refund_to_proto(refund))

    async def ClaimOrder(  # noqa: N802 - named by the contract
        self, request: ClaimOrderRequest, context: Context
    ) -> ClaimOrderResponse:
        """Let one payment win the order."""
        won, order = await claim_order(self._parts, request.order_id, request.payment_id, current())
        return ClaimOrderResponse(won=won, order=order_to_proto(order))

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: Context
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._facts, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: Context
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._facts, self._tokens, request)
