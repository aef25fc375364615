"""The gRPC server of a process: unary methods for everybody, streams for the mesh.

Beside the services it answers health and reflection, so that any gRPC tool can list and probe it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from paymesh.mesh import errors as wire
from paymesh.mesh.connect import MESSAGE_SLACK_BYTES
from paymesh.mesh.frames import EXCHANGE_METHOD

from common.errors import MessageTooLargeError, MethodUnknownError
from common.mesh.collector import Collector
from common.mesh.dispatch import Dispatcher
from common.mesh.frame_server import FrameServer
from common.mesh.incoming import IncomingCall, Method
from common.mesh.settings import MeshSettings
from common.mesh.status import CallStatus, status_of

MESH_SERVICE: Final = EXCHANGE_METHOD.split("/")[1]

UnaryContext = grpc.aio.ServicerContext[Any, Any]


def identities_of(context: UnaryContext) -> frozenset[str] | None:
    """Return the names in the peer's certificate; None without mutual TLS."""
    names = context.auth_context().get("x509_subject_alternative_name")
    if not names:
        return None
    return frozenset(name.decode() for name in names)


class ServedMethods(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Finds the handler of every method, and one that says so for those there are not."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        collector: Collector,
        frames: FrameServer,
        elsewhere: Callable[[str], bool],
    ) -> None:
        self._dispatcher = dispatcher
        self._elsewhere = elsewhere
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            path: grpc.unary_unary_rpc_method_handler(self._behaviour_of(method))
            for path, method in collector.methods.items()
        }
        self._handlers[EXCHANGE_METHOD] = frames.handler()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Return the handler of a call; None for services that the gRPC library answers."""
        path = handler_call_details.method
        found = self._handlers.get(path)
        if found is None and not self._elsewhere(path):
            return grpc.unary_unary_rpc_method_handler(self._refuse_unknown(path))
        return found

    def _behaviour_of(self, method: Method) -> Callable[[bytes, UnaryContext], Any]:
        dispatcher = self._dispatcher
        clock = dispatcher.clock
        limit = dispatcher.message_bytes_max

        async def behave(payload: bytes, context: UnaryContext) -> bytes:
            if len(payload) > limit:
                await _end(context, status_of(MessageTooLargeError(limit_bytes=limit)), ())
            left = context.time_remaining()
            now = clock.monotonic()
            call = IncomingCall(
                method,
                clock,
                now,
                tuple(context.invocation_metadata() or ()),
                None if left is None else now + left,
            )
            call.carry(payload=payload)
            call.identities = identities_of(context)
            call.peer_address = context.peer()
            await dispatcher.run(call, encode=True)
            if call.initial:
                await context.send_initial_metadata(call.initial)
            if call.status is not None:
                await _end(context, call.status, call.trailing)
            if call.trailing:
                context.set_trailing_metadata(call.trailing)
            return call.answer

        return behave

    def _refuse_unknown(self, path: str) -> Callable[[bytes, UnaryContext], Any]:
        async def refuse(_: bytes, context: UnaryContext) -> bytes:
            await _end(context, status_of(MethodUnknownError(method=path)), ())
            return b""

        return refuse


async def _end(
    context: UnaryContext, status: CallStatus, trailing: tuple[tuple[str, str | bytes], ...]
) -> None:
    details = ((wire.DETAILS_KEY, status.details),) if status.details else ()
    await context.abort(status.code, status.message, (*trailing, *details))


class MeshServer:
    """One listening server; made inside a running event loop."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        collector: Collector,
        frames: FrameServer,
        settings: MeshSettings,
        addresses: Iterable[str],
    ) -> None:
        self._server = grpc.aio.server(options=_options(settings))
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._services = [*collector.services, MESH_SERVICE]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        own = ServedMethods(dispatcher, collector, frames, _is_library_method)
        self._server.add_generic_rpc_handlers((own,))
        self._addresses = list(addresses)
        self._settings = settings
        self.ports: list[int] = []
        """Ports that are listened on, in the order of the addresses."""

    async def start(self) -> None:
        """Listen and say that every service is serving."""
        credentials = server_credentials(self._settings)
        for address in self._addresses:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
            self.ports.append(port)
        await self._server.start()
        await self._say(health_pb2.HealthCheckResponse.SERVING)

    async def say_not_serving(self) -> None:
        """Answer health probes with NOT_SERVING from now on."""
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_seconds: float) -> None:
        """Take no new calls, wait for those under way, then stop."""
        await self._server.stop(grace_seconds)

    async def _say(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)


def _is_library_method(path: str) -> bool:
    return path.startswith(("/grpc.health.", "/grpc.reflection."))


def _options(settings: MeshSettings) -> tuple[tuple[str, int], ...]:
    limit = settings.message_bytes_max + MESSAGE_SLACK_BYTES
    return (
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Two processes must not share a port by mistake: the second one fails to start.
        ("grpc.so_reuseport", 0),
        # Callers ping every 20 s to notice a vanished machine; without this gRPC sends them away.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 0),
    )


def _read(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def server_credentials(settings: MeshSettings) -> grpc.ServerCredentials | None:
    """Return credentials for mutual TLS; None when it is off.

    Clients without a certificate are refused when an authority is configured.
    """
    if settings.tls_certificate_path is None or settings.tls_key_path is None:
        return None
    authority = _read(settings.tls_authority_path)
    pair = (settings.tls_key_path.read_bytes(), settings.tls_certificate_path.read_bytes())
    return grpc.ssl_server_credentials(
        [pair], root_certificates=authority, require_client_auth=authority is not None
    )


def channel_credentials(settings: MeshSettings) -> grpc.ChannelCredentials | None:
    """Return what this process proves itself with when it calls; None when TLS is off."""
    if settings.tls_certificate_path is None:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read(settings.tls_authority_path),
        private_key=_read(settings.tls_key_path),
        certificate_chain=_read(settings.tls_certificate_path),
    )
