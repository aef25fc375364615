"""Calls to the services behind the door, and the contracts that say which there are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import paymesh
from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from paymesh.channel.v1 import ChannelServiceStub, HandleCallbackRequest
from paymesh.member.v1 import GetMerchantKeyRequest, MemberServiceStub, MemberStatus

from common.errors import PaymeshError, RemoteError
from common.mesh.status import error_of
from services.edge.domain import CallbackAnswer, KeyHolder

OpenChannel = Callable[[str], grpc.aio.Channel]
"""Returns the channel to a service, by its name."""


def contract_services() -> list[ServiceDescriptor]:
    """Return every service of every contract that the client package has, by name."""
    found: dict[str, ServiceDescriptor] = {}
    for home in paymesh.__path__:
        for stub in sorted(Path(home).glob("*/v*/*_pb2.py")):
            name = f"paymesh.{stub.parent.parent.name}.{stub.parent.name}.{stub.stem}"
            file: FileDescriptor = importlib.import_module(name).DESCRIPTOR
            found |= {one.full_name: one for one in file.services_by_name.values()}
    return [found[name] for name in sorted(found)]


def _as_error(failed: grpc.RpcError) -> PaymeshError:
    return failed if isinstance(failed, PaymeshError) else error_of(failed)


class ContractPeers:
    """Any unary RPC of any contract, called by its path."""

    def __init__(self, open_channel: OpenChannel) -> None:
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._calls: dict[str, Any] = {}

    def prepare(self, service: str, rpc: str, response_class: type[Message]) -> None:
        """Make a method callable; done once for each route, at start-up."""
        channel = self._channels.get(service)
        if channel is None:
            channel = self._channels[service] = self._open_channel(service)
        self._calls[rpc] = channel.unary_unary(
            rpc,
            request_serializer=_serialize,
            response_deserializer=response_class.FromString,
        )

    async def call(self, rpc: str, request: Message, timeout_seconds: float) -> Message:
        """Call a prepared method; raises PaymeshError with the service's own reason."""
        try:
            answer: Message = await self._calls[rpc](request, timeout=timeout_seconds)
        except grpc.RpcError as failed:
            raise _as_error(failed) from None
        return answer


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


class MemberPeer:
    """Asks `member` whose key it is."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = MemberServiceStub(channel)

    async def find_key(self, key_id: str, timeout_seconds: float) -> KeyHolder | None:
        """Return the key and its merchant; None when there is no such key."""
        try:
            answer = await self._stub.GetMerchantKey(
                GetMerchantKeyRequest(key_id=key_id), timeout=timeout_seconds
            )
        except grpc.RpcError as failed:
            error = _as_error(failed)
            if isinstance(error, RemoteError) and error.remote_reason == "NOT_FOUND":
                return None
            raise error from None
        except RemoteError as error:
            if error.remote_reason == "NOT_FOUND":
                return None
            raise
        key, merchant = answer.key, answer.merchant
        return KeyHolder(
            key_id=key.id,
            merchant_id=key.merchant_id,
            mode=key.mode,
            public_key=key.public_key,
            is_revoked=key.HasField("revoked_at"),
            may_trade=merchant.status == MemberStatus.MEMBER_STATUS_ACTIVE,
            ttl_seconds=float(answer.ttl_seconds),
        )


class ChannelPeer:
    """Hands to `channel` what a channel sent to us."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = ChannelServiceStub(channel)

    async def handle_callback(
        self,
        channel: str,
        headers: Mapping[str, str],
        query: str,
        body: bytes,
        timeout_seconds: float,
    ) -> CallbackAnswer:
        """Return what the channel wants to hear; raises PaymeshError."""
        try:
            answer = await self._stub.HandleCallback(
                HandleCallbackRequest(channel=channel, headers=headers, query=query, body=body),
                timeout=timeout_seconds,
            )
        except grpc.RpcError as failed:
            raise _as_error(failed) from None
        return CallbackAnswer(answer.http_status, answer.content_type, answer.body)
