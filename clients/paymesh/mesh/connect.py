"""Channels to a service of the mesh, for programs outside of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Literal

import grpc
import grpc.aio

from paymesh.mesh.frames import Metadata
from paymesh.mesh.stream_channel import StreamChannel, StreamSettings

MESSAGE_SLACK_BYTES: Final = 65_536
"""gRPC's own limit lies this much above ours, so that ours is met first and names its reason."""


def channel_options(message_bytes_max: int) -> tuple[tuple[str, str | int], ...]:
    """Return options of a plain channel that suit both ways."""
    return (
        ("grpc.max_receive_message_length", message_bytes_max + MESSAGE_SLACK_BYTES),
        ("grpc.max_send_message_length", message_bytes_max + MESSAGE_SLACK_BYTES),
        # A private pool: a new channel connects at once instead of inheriting the back-off of the
        # one before it, and resolves the target's name again.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 50),
        # In gRPC this is also the least time that one attempt to connect gets: a busy machine may
        # need a second to answer.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
        ("grpc.lb_policy_name", "round_robin"),
        # A peer whose machine vanished is noticed within half a minute.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_http_proxy", 0),
    )


def dial(
    target: str,
    message_bytes_max: int,
    credentials: grpc.ChannelCredentials | None = None,
    extra_options: tuple[tuple[str, str | int], ...] = (),
) -> grpc.aio.Channel:
    """Return a new plain channel to `host:port`, with TLS when credentials are given."""
    options = (*channel_options(message_bytes_max), *extra_options)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, credentials, options=options)


def connect(
    target: str,
    way: Literal["unary", "stream"] = "unary",
    *,
    service: str = "",
    credentials: grpc.ChannelCredentials | None = None,
    settings: StreamSettings | None = None,
    open_metadata: Callable[[], Metadata] = tuple,
) -> grpc.aio.Channel:
    """Return a channel to `host:port` for the generated stubs; close it when done.

    `unary` is plain gRPC, open to everybody. `stream` shares one long-lived stream among all
    unary calls and costs a small part of it at load; `service` names the caller in its hello.
    Must be called inside a running event loop.
    """
    chosen = settings or StreamSettings()
    make = partial(dial, target, chosen.limits.message_bytes_max, credentials)
    if way == "unary":
        return make()
    return StreamChannel(
        make, target=target, service=service, settings=chosen, open_metadata=open_metadata
    )
