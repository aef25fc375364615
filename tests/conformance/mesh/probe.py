"""A service that does what the tests of the mesh ask for: refuse, crash, wait, answer at length."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Final

import asyncpg
import grpc
import grpc.aio
from google.rpc import code_pb2  # type: ignore[import-untyped]
from paymesh.mesh.v1 import EchoRequest, EchoResponse

from common.context import current
from common.errors import NotFoundError, Outcome, RemoteError, Retry

SERVICE: Final = "paymesh.probe.v1.ProbeService"

Context = grpc.aio.ServicerContext[Any, Any]

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


class Probe:
    """The servicer, with what it has seen."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.gate = asyncio.Event()
        self.running = 0
        self.waits = 0
        self.received: list[EchoRequest] = []
        self.answered: list[EchoResponse] = []

    def register(self, server: grpc.aio.Server) -> None:
        """Add the methods, as generated code would."""
        behaviours: dict[str, Callable[[EchoRequest, Context], Awaitable[EchoResponse]]] = {
            "Echo": self.echo,
            "Keep": self.keep,
            "Refuse": self.refuse,
            "Crash": self.crash,
            "Lose": self.lose,
            "Abort": self.abort,
            "SetCode": self.set_code,
            "Wait": self.wait,
            "Answer": self.answer,
            "Metadata": self.metadata,
            "Mark": self.mark,
            "Relay": self.relay,
        }
        server.add_registered_method_handlers(  # type: ignore[attr-defined]
            SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    behaviour, EchoRequest.FromString, EchoResponse.SerializeToString
                )
                for name, behaviour in behaviours.items()
            },
        )

    async def echo(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Answer with the request and the circumstances."""
        call = current()
        principal = call.principal
        left = context.time_remaining()
        return EchoResponse(
            message=request.message,
            payload=request.payload,
            number=self.waits,
            caller=call.caller,
            biz_trace_id=call.biz_trace_id,
            lane=call.lane,
            principal=f"{principal.merchant_id}/{principal.mode}/{principal.actor}",
            timeout_microseconds=0 if left is None else int(left * 1_000_000),
        )

    async def keep(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Keep both messages, so that a test can look at them later."""
        self.received.append(request)
        self.begun.set()
        await self.gate.wait()
        response = EchoResponse(message=request.message)
        self.answered.append(response)
        request.message = "changed by the servicer"
        return response

    async def refuse(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Fail as a service does."""
        raise NotFoundError(retry=Retry.NEW_ID, resource="order", id=request.message)

    async def crash(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Fail as no service should."""
        raise ValueError("card 4111111111111111")

    async def lose(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Fail as a service does whose database goes away: by its own word or the connection's."""
        if request.number:
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle")
        raise ConnectionRefusedError("nobody listens")

    async def abort(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Fail by gRPC's own means."""
        code = grpc.StatusCode.DATA_LOSS
        assert code.value[0] == code_pb2.DATA_LOSS
        await context.abort(code, "gone", (("why", "because"),))

    async def set_code(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Fail by gRPC's other means."""
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("too far")
        return EchoResponse()

    async def wait(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Wait for the gate."""
        self.begun.set()
        self.waits += 1
        self.running += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        finally:
            self.running -= 1
        return EchoResponse(message=request.message)

    async def answer(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Answer with as many bytes as were asked for."""
        return EchoResponse(payload=bytes(request.number))

    async def metadata(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Send back metadata under `x-` keys, at the beginning and at the end."""
        pairs: list[tuple[str, str | bytes]] = [
            (str(key), value)
            for key, value in context.invocation_metadata() or ()
            if str(key).startswith("x-")
        ]
        await context.send_initial_metadata((("x-begun", "yes"),))
        context.set_trailing_metadata(tuple(pairs))
        return EchoResponse(message=request.message)

    async def mark(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Set a context variable and answer with what it was before."""
        before = SEEN.get()
        SEEN.set(request.message)
        return EchoResponse(message=before)

    async def relay(self, request: EchoRequest, context: Context) -> EchoResponse:
        """Let the failure of a call to a third service through."""
        raise RemoteError(
            remote_reason="INSUFFICIENT_FUNDS",
            remote_message="not enough",
            outcome=Outcome.NOT_EXECUTED,
            retry=Retry.NEW_ID,
            account_id="acc_1",
        )
