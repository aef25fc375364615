"""The stream alone: fairness, bounds, peers that drain, die or come back."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
from paymesh.mesh import errors as wire
from paymesh.mesh.connect import connect
from paymesh.mesh.frames import Limits
from paymesh.mesh.stream_channel import StreamChannel, StreamSettings
from paymesh.mesh.v1 import EchoRequest

from common.embedded import ports
from common.errors import Outcome, RemoteError
from tests.conformance.mesh.conftest import StartMesh
from tests.conformance.mesh.mesh_kit import (
    caller_metadata,
    eventually,
    make_host,
    mesh_settings,
    method_on,
    within,
)
from tests.conformance.mesh.probe import Probe

ROOT = Path(__file__).resolve().parents[3]
SHOP = caller_metadata("shop")
IMPATIENT = StreamSettings(patience_seconds=0.0)


@pytest.fixture
def way() -> str:
    """These tests are about the stream."""
    return "stream"


Spawn = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def spawn_peer() -> AsyncIterator[Spawn]:
    """Start `far` as a process of its own; killed at the end."""
    processes: list[asyncio.subprocess.Process] = []

    async def spawn(port: int, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.conformance.mesh.peer",
            str(port),
            *arguments,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        processes.append(process)
        assert await said(process) == "ready"
        return process

    yield spawn
    for process in processes:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> str:
    """Return the next line that a peer says."""
    assert process.stdout is not None
    return str((await within(process.stdout.readline(), 30)).decode().strip())


@asynccontextmanager
async def channel_to(
    port: int, settings: StreamSettings | None = None
) -> AsyncIterator[StreamChannel]:
    """A bare stream channel to a port."""
    channel = connect(f"127.0.0.1:{port}", "stream", settings=settings)
    assert isinstance(channel, StreamChannel)
    async with channel:
        yield channel


async def test_dying_peer_leaves_written_calls_unknown_and_others_not_executed(
    spawn_peer: Spawn,
) -> None:
    """A call that left may have been executed; one that never left surely was not."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port)
    async with channel_to(port, IMPATIENT) as channel:
        written = method_on(channel, "Wait")(EchoRequest(), timeout=20, metadata=SHOP)
        assert await said(process) == "begun"
        process.kill()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await within(written)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        failure = wire.decode(caught.value)
        assert (failure.reason, failure.outcome) == ("UNAVAILABLE", wire.UNKNOWN)
        await process.wait()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await within(method_on(channel, "Echo")(EchoRequest(), timeout=20, metadata=SHOP))
        failure = wire.decode(caught.value)
        assert (failure.reason, failure.outcome) == ("UNAVAILABLE", wire.NOT_EXECUTED)


async def test_peer_that_comes_back_is_found_again(spawn_peer: Spawn) -> None:
    """Calls made while it was away wait for it, within their patience."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port)
    async with channel_to(port, StreamSettings(patience_seconds=30)) as channel:
        echo = method_on(channel, "Echo")
        await within(echo(EchoRequest(), timeout=20, metadata=SHOP))
        process.kill()
        await process.wait()
        await eventually(
            lambda: channel.get_state() is not grpc.ChannelConnectivity.READY, "it is noticed"
        )
        waiting = echo(EchoRequest(message="patient"), timeout=30, metadata=SHOP)
        await spawn_peer(port)
        assert (await within(waiting, 30)).message == "patient"


@pytest.mark.parametrize("repeats", [True, False])
async def test_call_of_unknown_outcome_is_repeated_only_where_that_is_safe(
    spawn_peer: Spawn, way: str, repeats: bool
) -> None:
    """The peer dies with the call in its hands; only a marked channel asks its successor."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port)
    settings = mesh_settings(connect_patience_seconds=30, retries_max=3)
    near = make_host("near", port, way, settings)
    try:
        wait = method_on(near.channel("shop", "probe", repeat_unknown=repeats), "Wait")
        call = asyncio.ensure_future(wait(EchoRequest(message="once"), timeout=40))
        assert await said(process) == "begun"
        process.kill()
        await process.wait()
        if repeats:
            await spawn_peer(port, "open")
            assert (await within(call, 40)).message == "once"
        else:
            with pytest.raises(RemoteError) as caught:
                await within(call)
            assert caught.value.outcome is Outcome.UNKNOWN
    finally:
        await near.close()


async def test_repeats_that_come_to_nothing_do_not_hide_that_the_first_may_have_executed(
    spawn_peer: Spawn, way: str
) -> None:
    """Or a caller would take money a second time elsewhere, because the last attempt never left."""
    port = ports.choose(1)[0]
    process = await spawn_peer(port)
    settings = mesh_settings(connect_patience_seconds=0.1, retries_max=2)
    near = make_host("near", port, way, settings)
    try:
        wait = method_on(near.channel("shop", "probe", repeat_unknown=True), "Wait")
        call = asyncio.ensure_future(wait(EchoRequest(message="once"), timeout=40))
        assert await said(process) == "begun"
        process.kill()
        await process.wait()
        with pytest.raises(RemoteError) as caught:
            await within(call, 40)
        assert caught.value.outcome is Outcome.UNKNOWN
    finally:
        await near.close()


async def test_unreachable_peer_fails_calls_as_not_executed() -> None:
    async with channel_to(ports.choose(1)[0], IMPATIENT) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await within(method_on(channel, "Echo")(EchoRequest(), timeout=20))
        assert wire.decode(caught.value).outcome == wire.NOT_EXECUTED


async def test_deadline_of_a_call_that_waits_for_its_peer_is_not_executed() -> None:
    async with channel_to(ports.choose(1)[0], StreamSettings(patience_seconds=60)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await within(method_on(channel, "Echo")(EchoRequest(), timeout=0.2))
        failure = wire.decode(caught.value)
        assert (failure.reason, failure.outcome) == ("DEADLINE_EXCEEDED", wire.NOT_EXECUTED)


async def test_breaker_leaves_a_dead_target_alone(way: str) -> None:
    """After enough failures in a row calls fail at once, without trying."""
    settings = mesh_settings(connect_patience_seconds=0, breaker_failures=3)
    near = make_host("near", ports.choose(1)[0], way, settings)
    echo = method_on(near.channel("shop", "probe"), "Echo")
    try:
        for _ in range(3):
            with pytest.raises(RemoteError):
                await within(echo(EchoRequest()))
        with pytest.raises(RemoteError) as caught:
            await echo(EchoRequest())
        assert caught.value.remote_reason == "UNAVAILABLE"
        assert caught.value.outcome is Outcome.NOT_EXECUTED
        assert caught.value.retry_after_seconds is not None
    finally:
        await near.close()


async def test_channel_is_bounded_in_calls(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw_stream(StreamSettings(limits=Limits(calls_max=8)))
    wait = method_on(channel, "Wait")
    held = [wait(EchoRequest(), timeout=20, metadata=SHOP) for _ in range(8)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(EchoRequest(), timeout=20, metadata=SHOP)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    failure = wire.decode(caught.value)
    assert (failure.reason, failure.outcome) == ("OVERLOADED", wire.NOT_EXECUTED)
    mesh.probe.gate.set()
    await within(asyncio.gather(*held))


async def test_bound_of_the_peer_makes_calls_wait(start_mesh: StartMesh) -> None:
    """The peer's bound is kept by the sender: calls wait for their turn instead of failing."""
    mesh = await start_mesh("stream", stream_calls_max=4)
    channel = mesh.raw_stream()
    wait = method_on(channel, "Wait")
    held = [wait(EchoRequest(), timeout=20, metadata=SHOP) for _ in range(12)]
    await eventually(lambda: mesh.probe.running == 4, "four calls run")
    mesh.probe.gate.set()
    await within(asyncio.gather(*held))


async def test_small_calls_pass_large_ones(start_mesh: StartMesh) -> None:
    """While many megabytes are under way, small calls are answered first."""
    mesh = await start_mesh("stream")
    echo = method_on(mesh.raw(), "Echo")
    order: list[str] = []

    async def call(name: str, size: int) -> None:
        await echo(EchoRequest(message=name, payload=bytes(size)), timeout=30, metadata=SHOP)
        order.append(name)

    large = [asyncio.ensure_future(call("large", 3_000_000)) for _ in range(12)]
    await asyncio.sleep(0)
    small = [asyncio.ensure_future(call("small", 10)) for _ in range(50)]
    await within(asyncio.gather(*large, *small), 60)
    assert order[:50] == ["small"] * 50


async def test_large_answers_do_not_hold_up_small_ones(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw()
    order: list[str] = []

    async def call(name: str, number: int) -> None:
        method = method_on(channel, "Answer")
        response = await method(EchoRequest(number=number), timeout=30, metadata=SHOP)
        assert len(response.payload) == number
        order.append(name)

    large = [asyncio.ensure_future(call("large", 3_000_000)) for _ in range(12)]
    await asyncio.sleep(0)
    small = [asyncio.ensure_future(call("small", 10)) for _ in range(50)]
    await within(asyncio.gather(*large, *small), 60)
    assert order[:50] == ["small"] * 50


async def test_cancelling_a_large_call_half_way_leaves_the_stream_well(
    start_mesh: StartMesh,
) -> None:
    mesh = await start_mesh("stream")
    echo = method_on(mesh.raw(), "Echo")
    for _ in range(5):
        call = echo(EchoRequest(payload=bytes(4_000_000)), timeout=30, metadata=SHOP)
        task = asyncio.ensure_future(asyncio.wait_for(call, 0.002))
        with pytest.raises((TimeoutError, asyncio.CancelledError)):
            await task
    response = await within(
        echo(EchoRequest(payload=bytes(4_000_000)), timeout=30, metadata=SHOP), 30
    )
    assert len(response.payload) == 4_000_000
    await eventually(lambda: mesh.far.calls_in_flight == 0, "no call is in flight")


async def test_calls_after_a_drain_go_to_the_next_process() -> None:
    """Under load: no call fails while one process drains and another takes its port."""
    port = ports.choose(1)[0]

    first = make_host("far", port, "stream", mesh_settings())
    probe = Probe()
    first.add("probe", probe.register)
    await first.start()
    second = make_host("far", port, "stream", mesh_settings())
    second.add("probe", Probe().register)
    answered: list[str] = []
    stop = asyncio.Event()

    async with channel_to(port, StreamSettings(patience_seconds=20)) as channel:
        echo = method_on(channel, "Echo")

        async def load(name: int) -> None:
            number = 0
            while not stop.is_set():
                message = f"{name}.{number}"
                response = await echo(EchoRequest(message=message), timeout=30, metadata=SHOP)
                assert response.message == message
                answered.append(message)
                number += 1

        workers = [asyncio.ensure_future(load(name)) for name in range(16)]
        await eventually(lambda: len(answered) > 500, "calls are answered")
        await within(first.drain(10))
        before = len(answered)
        await second.start()
        await eventually(lambda: len(answered) > before + 500, "calls are answered again")
        stop.set()
        await within(asyncio.gather(*workers))
    await first.close()
    await second.drain(5)
    await second.close()


async def test_stream_that_is_old_is_replaced_without_a_failure(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw_stream(StreamSettings(age_max_seconds=0.02))
    echo = method_on(channel, "Echo")
    streams: set[int] = set()
    async with asyncio.timeout(30):
        while len(streams) < 4:
            batch = [echo(EchoRequest(), timeout=20, metadata=SHOP) for _ in range(20)]
            await asyncio.gather(*batch)
            streams.update(id(call.exchange) for call in batch)


async def test_closing_the_channel_ends_its_calls(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw_stream()
    held = method_on(channel, "Wait")(EchoRequest(), timeout=20, metadata=SHOP)
    await within(mesh.probe.begun.wait())
    await within(channel.close(None))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await within(held)
    assert wire.decode(caught.value).outcome == wire.UNKNOWN
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(channel, "Echo")(EchoRequest(), timeout=20, metadata=SHOP)
    assert wire.decode(caught.value).outcome == wire.NOT_EXECUTED
    await eventually(lambda: mesh.probe.running == 0, "the servicer has stopped")


async def test_closing_with_grace_waits_for_answers(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw_stream()
    held = method_on(channel, "Wait")(EchoRequest(message="x"), timeout=20, metadata=SHOP)
    await within(mesh.probe.begun.wait())
    closing = asyncio.ensure_future(channel.close(10))
    mesh.probe.gate.set()
    assert (await within(held)).message == "x"
    await within(closing)


async def test_channel_says_its_state(start_mesh: StartMesh) -> None:
    mesh = await start_mesh("stream")
    channel = mesh.raw_stream()
    assert channel.get_state() is grpc.ChannelConnectivity.IDLE
    await within(channel.channel_ready())
    assert channel.get_state() is grpc.ChannelConnectivity.READY
    await channel.close(None)
    assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
