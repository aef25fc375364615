"""Sends back what it is sent: how probes measure a hop and tests look at its circumstances."""

from __future__ import annotations

from typing import Any

import grpc.aio
from paymesh.mesh.v1 import EchoRequest, EchoResponse, EchoServiceServicer

from common.context import current


class EchoServicer(EchoServiceServicer):
    """Answers with the request and what the service knows about the call."""

    async def Echo(  # noqa: N802 - the contract's name
        self, request: EchoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> EchoResponse:
        """Return the request and its circumstances."""
        call = current()
        who = call.principal
        left = context.time_remaining()
        return EchoResponse(
            message=request.message,
            payload=request.payload,
            number=request.number,
            caller=call.caller,
            biz_trace_id=call.biz_trace_id,
            lane=call.lane,
            principal=f"{who.tenant_id}/{who.mode.value}/{who.merchant_id}/{who.actor}",
            timeout_microseconds=0 if left is None else int(left * 1_000_000),
        )
