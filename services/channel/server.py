"""The servicer of channel: converts, calls a flow, converts back."""

from __future__ import annotations

from typing import Any

import grpc
from paymesh.channel.v1 import (
    ChannelServiceServicer,
    ChargeRequest,
    ChargeResponse,
    CloseChargeRequest,
    CloseChargeResponse,
    ExamineCallbackRequest,
    ExamineCallbackResponse,
    HandleCallbackRequest,
    HandleCallbackResponse,
    ListChannelsRequest,
    ListChannelsResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    QueryChargeRequest,
    QueryChargeResponse,
    QueryRefundRequest,
    QueryRefundResponse,
    RefundRequest,
    RefundResponse,
)

from common.context import current
from common.paging import PageTokens
from services.channel.convert import (
    channel_to_proto,
    charge_to_proto,
    examined_to_proto,
    new_charge_from_proto,
    new_refund_from_proto,
    refund_to_proto,
)
from services.channel.flows.charge_payer import charge_payer
from services.channel.flows.close_charge import close_charge
from services.channel.flows.examine_callback import examine_callback
from services.channel.flows.parts import Parts
from services.channel.flows.query_charge import query_charge
from services.channel.flows.query_refund import query_refund
from services.channel.flows.refund_payer import refund_payer
from services.channel.flows.take_callback import take_callback
from services.channel.results import RawCallback
from services.channel.story import list_facts, list_story

Context = grpc.aio.ServicerContext[Any, Any]


class ChannelServicer(ChannelServiceServicer):
    """`paymesh.channel.v1.ChannelService`."""

    def __init__(self, parts: Parts, tokens: PageTokens) -> None:
        self._parts = parts
        self._tokens = tokens

    async def Charge(  # noqa: N802 - named by the contract
        self, request: ChargeRequest, context: Context
    ) -> ChargeResponse:
        """Take money from a payer."""
        charge = await charge_payer(self._parts, new_charge_from_proto(request), current())
        return ChargeResponse(charge=charge_to_proto(charge))

    async def QueryCharge(  # noqa: N802 - named by the contract
        self, request: QueryChargeRequest, context: Context
    ) -> QueryChargeResponse:
        """Ask what became of a charge."""
        charge, is_unseen = await query_charge(self._parts, request.reference, current())
        return QueryChargeResponse(charge=charge_to_proto(charge, is_unseen=is_unseen))

    async def CloseCharge(  # noqa: N802 - named by the contract
        self, request: CloseChargeRequest, context: Context
    ) -> CloseChargeResponse:
        """Close a charge."""
        charge, is_unseen = await close_charge(self._parts, request.reference, current())
        return CloseChargeResponse(charge=charge_to_proto(charge, is_unseen=is_unseen))

    async def Refund(  # noqa: N802 - named by the contract
        self, request: RefundRequest, context: Context
    ) -> RefundResponse:
        """Give money back."""
        refund = await refund_payer(self._parts, new_refund_from_proto(request), current())
        return RefundResponse(refund=refund_to_proto(refund))

    async def QueryRefund(  # noqa: N802 - named by the contract
        self, request: QueryRefundRequest, context: Context
    ) -> QueryRefundResponse:
        """Ask what became of a refund."""
        refund, is_unseen = await query_refund(self._parts, request.reference, current())
        return QueryRefundResponse(refund=refund_to_proto(refund, is_unseen=is_unseen))

    async def HandleCallback(  # noqa: N802 - named by the contract
        self, request: HandleCallbackRequest, context: Context
    ) -> HandleCallbackResponse:
        """Take what a channel sent."""
        raw = RawCallback(
            body=request.body, headers=dict(request.headers), query_string=request.query
        )
        answer = await take_callback(self._parts, request.channel, raw)
        return HandleCallbackResponse(
            http_status=answer.status, content_type=answer.media_type, body=answer.body
        )

    async def ExamineCallback(  # noqa: N802 - named by the contract
        self, request: ExamineCallbackRequest, context: Context
    ) -> ExamineCallbackResponse:
        """Look into a questioned callback."""
        examined = await examine_callback(self._parts, request.callback_id, current())
        return examined_to_proto(examined)

    async def ListChannels(  # noqa: N802 - named by the contract
        self, request: ListChannelsRequest, context: Context
    ) -> ListChannelsResponse:
        """List the channels."""
        channels = self._parts.catalogue.list_all()
        return ListChannelsResponse(channels=[channel_to_proto(one) for one in channels])

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
