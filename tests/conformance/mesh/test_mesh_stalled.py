"""A peer that stands still (SIGSTOP): callers are told in time, and nobody works for the gone."""

from __future__ import annotations

import asyncio
import signal
import socket

import grpc
import grpc.aio
import pytest
from paymesh.mesh import errors as wire
from paymesh.mesh.connect import connect
from paymesh.mesh.frames import Limits
from paymesh.mesh.stream_channel import StreamSettings
from paymesh.mesh.v1 import EchoRequest, EchoResponse

from common.embedded import ports
from common.errors import Outcome, RemoteError
from tests.conformance.mesh.mesh_kit import (
    caller_metadata,
    eventually,
    make_host,
    mesh_settings,
    method_on,
    within,
)
from tests.conformance.mesh.test_mesh_stream import Spawn, spawn_peer

__all__ = ["spawn_peer"]

SHOP = caller_metadata("shop")
READY = grpc.ChannelConnectivity.READY


async def fail(call: grpc.aio.UnaryUnaryCall[EchoRequest, EchoResponse]) -> wire.Failure:
    """Return why a call on a bare channel failed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await within(call)
    return wire.decode(caught.value)


async def test_calls_that_a_stalled_peer_finds_too_late_are_not_begun(spawn_peer: Spawn) -> None:
    """They say how much time they have left, but that was when they were sent."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port, "open")
    async with connect(f"127.0.0.1:{port}", "stream") as channel:
        echo, wait = method_on(channel, "Echo"), method_on(channel, "Wait")
        for _ in range(10):
            await within(echo(EchoRequest(), timeout=20, metadata=SHOP))
        process.send_signal(signal.SIGSTOP)
        calls = [wait(EchoRequest(), timeout=0.3, metadata=SHOP) for _ in range(50)]
        last = wait(EchoRequest(), timeout=1.0, metadata=SHOP)
        for call in calls:
            failure = await fail(call)
            assert (failure.reason, failure.outcome) == ("DEADLINE_EXCEEDED", wire.UNKNOWN)
        assert (await fail(last)).reason == "DEADLINE_EXCEEDED"
        process.send_signal(signal.SIGCONT)
        answer = await within(echo(EchoRequest(message="awake"), timeout=20, metadata=SHOP))
        assert answer.message == "awake"
        # The last one may have been just in time for a peer that was slow to begin with.
        assert answer.number <= 1


async def test_stalled_peer_is_left_alone_and_found_again(spawn_peer: Spawn) -> None:
    """After failures in a row nobody waits for it; once it goes on, calls go through again."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port, "open")
    settings = mesh_settings(breaker_failures=5, breaker_open_seconds=0.2)
    near = make_host("near", port, "stream", settings)
    echo = method_on(near.channel("shop", "probe"), "Echo")
    try:
        await within(echo(EchoRequest(), timeout=20))
        process.send_signal(signal.SIGSTOP)
        seen = set[tuple[str, Outcome]]()
        async with asyncio.timeout(30):
            while ("UNAVAILABLE", Outcome.NOT_EXECUTED) not in seen:
                with pytest.raises(RemoteError) as caught:
                    await echo(EchoRequest(), timeout=0.2)
                seen.add((caught.value.remote_reason, caught.value.outcome))
        assert ("DEADLINE_EXCEEDED", Outcome.UNKNOWN) in seen
        process.send_signal(signal.SIGCONT)
        async with asyncio.timeout(30):
            while True:
                try:
                    await echo(EchoRequest(), timeout=1.0)
                except RemoteError as error:
                    await asyncio.sleep(error.retry_after_seconds or 0.01)
                else:
                    break
    finally:
        await near.close()


async def test_calls_to_a_stalled_peer_are_bounded(spawn_peer: Spawn) -> None:
    """Those beyond the bound are refused, and given-up ones make room."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port, "open")
    settings = StreamSettings(limits=Limits(calls_max=32))
    async with connect(f"127.0.0.1:{port}", "stream", settings=settings) as channel:
        echo = method_on(channel, "Echo")
        await within(echo(EchoRequest(), timeout=20, metadata=SHOP))
        process.send_signal(signal.SIGSTOP)
        calls = [echo(EchoRequest(), timeout=0.3, metadata=SHOP) for _ in range(40)]
        reasons = [(await fail(call)).reason for call in calls]
        assert reasons == ["DEADLINE_EXCEEDED"] * 32 + ["OVERLOADED"] * 8
        # The room of those that were given up is free, whether or not the peer heard of it.
        late = echo(EchoRequest(message="late"), timeout=20, metadata=SHOP)
        process.send_signal(signal.SIGCONT)
        assert (await within(late)).message == "late"


async def test_calls_do_not_wait_for_a_peer_that_takes_connections_and_says_nothing() -> None:
    """The first connection of a process to a stalled peer: patience counts, not the attempt."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        settings = StreamSettings(patience_seconds=0.1, connect_timeout_seconds=60)
        async with connect(f"127.0.0.1:{port}", "stream", settings=settings) as channel:
            echo = method_on(channel, "Echo")
            failure = await fail(echo(EchoRequest(), timeout=60, metadata=SHOP))
            assert (failure.reason, failure.outcome) == ("UNAVAILABLE", wire.NOT_EXECUTED)


async def test_call_made_while_its_peer_restarts_goes_through(spawn_peer: Spawn) -> None:
    """Its patience is shorter than the restart; it is repeated within its deadline.

    The pauses are long and the call is alone, so that the budget for repeats, which all calls to a
    target share, outlasts a slow machine's restart.
    """
    port = ports.choose(1)[0]
    process = await spawn_peer(port, "open")
    settings = mesh_settings(connect_patience_seconds=0.1, retries_max=20, retry_pause_seconds=1.5)
    near = make_host("near", port, "stream", settings)
    channel = near.channel("shop", "probe")
    echo = method_on(channel, "Echo")
    try:
        await within(echo(EchoRequest(), timeout=20))
        process.kill()
        await process.wait()
        # Until the stream is known to be gone a call may still be written to it, and is in doubt.
        await eventually(lambda: channel.get_state() is not READY, "the stream is gone")
        call = asyncio.ensure_future(echo(EchoRequest(), timeout=60))
        await spawn_peer(port, "open")
        await within(call, 60)
        await eventually(lambda: near.calls_in_flight == 0, "nothing is left")
    finally:
        await near.close()
