"""Peers that break the protocol: the stream ends with a reason, the process goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import Message
from paymesh.mesh import errors as wire
from paymesh.mesh.connect import connect
from paymesh.mesh.frames import EXCHANGE_METHOD
from paymesh.mesh.v1 import (
    Answer,
    Call,
    EchoRequest,
    ExchangeRequest,
    ExchangeResponse,
    Hello,
    MetadataEntry,
    Part,
)

from tests.conformance.mesh.conftest import StartMesh
from tests.conformance.mesh.mesh_kit import Mesh, caller_metadata, method_on, within
from tests.conformance.mesh.probe import SERVICE

ECHO = f"/{SERVICE}/Echo"
SHOP = [MetadataEntry(key=key, value=value.encode()) for key, value in caller_metadata("shop")]
HELLO = ExchangeRequest(
    hello=Hello(version=1, frame_bytes_max=262_144, message_bytes_max=4_194_304, calls_max=64)
)


def call(call_id: int, **changes: Any) -> Call:
    """Return a proper call, but for the changes."""
    fields = {
        "call_id": call_id,
        "method": ECHO,
        "timeout_microseconds": 5_000_000,
        "metadata": SHOP,
        **changes,
    }
    return Call(**fields)


@pytest.fixture
async def mesh(start_mesh: StartMesh) -> Mesh:
    """A mesh by stream."""
    return await start_mesh("stream", stream_calls_max=4, message_bytes_max=131_072)


class RawPeer:
    """A caller that writes what it likes."""

    def __init__(self, rpc: grpc.aio.StreamStreamCall[Any, Any]) -> None:
        self.rpc = rpc
        self.expects_service = True
        """After the test the process must still serve others."""

    async def send(self, *frames: Message | bytes) -> None:
        """Write frames; an ended stream shows when it is read."""
        for frame in frames:
            data = frame if isinstance(frame, bytes) else frame.SerializeToString()
            await self.rpc.write(data)

    async def read(self) -> ExchangeResponse:
        """Return the next frame."""
        data = await within(self.rpc.read())
        assert isinstance(data, bytes), await self.rpc.details()
        return ExchangeResponse.FromString(data)

    async def answer(self) -> Answer:
        """Return the next answer."""
        while True:
            frame = await self.read()
            if frame.answers:
                assert len(frame.answers) == 1
                return frame.answers[0]

    async def ended(self) -> grpc.StatusCode:
        """Read until the stream ends; return how."""
        try:
            while isinstance(await within(self.rpc.read()), bytes):
                pass
        except grpc.aio.AioRpcError:
            pass
        return await within(self.rpc.code())  # type: ignore[no-any-return]


@pytest.fixture
async def peer(mesh: Mesh) -> AsyncIterator[RawPeer]:
    """A raw stream to the mesh."""
    channel = connect(f"127.0.0.1:{mesh.far.ports[0]}")
    rpc: Any = channel.stream_stream(EXCHANGE_METHOD, None, None)()  # type: ignore[call-arg]
    raw = RawPeer(rpc)
    yield raw
    rpc.cancel()
    await channel.close(None)
    if not raw.expects_service:
        return
    answer = await method_on(mesh.raw(), "Echo")(
        EchoRequest(message="still here"), timeout=5, metadata=caller_metadata("shop")
    )
    assert answer.message == "still here"


@pytest.mark.parametrize(
    "first",
    [
        ExchangeRequest(),
        ExchangeRequest(calls=[call(1)]),
        ExchangeRequest(hello=HELLO.hello, calls=[call(1)]),
        ExchangeRequest(hello=Hello(version=2, frame_bytes_max=262_144, calls_max=1)),
        ExchangeRequest(hello=Hello(version=1, frame_bytes_max=10, calls_max=1)),
        ExchangeRequest(hello=Hello(version=1, frame_bytes_max=262_144)),
        b"\xff\xff\xff not a frame",
    ],
)
async def test_beginning_without_a_proper_hello_is_refused(
    peer: RawPeer, first: Message | bytes
) -> None:
    await peer.send(first)
    assert await peer.ended() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    "frames",
    [
        [b"\xff\xff\xff not a frame"],
        [HELLO],
        [ExchangeRequest(calls=[call(1), call(1)])],
        [ExchangeRequest(calls=[call(5), call(4)])],
        [ExchangeRequest(calls=[call(0)])],
        [ExchangeRequest(calls=[call(1, method="", method_index=7)])],
        [ExchangeRequest(calls=[call(1, method_index=1), call(2, method_index=1)])],
        [ExchangeRequest(calls=[call(1, method_index=5_000)])],
        [ExchangeRequest(calls=[call(1, method="/" + "x" * 600, method_index=1)])],
        [ExchangeRequest(parts=[Part(call_id=9, payload=b"x")])],
        [ExchangeRequest(calls=[call(1, payload_bytes=4, payload=b"12345")])],
        [
            ExchangeRequest(calls=[call(1, payload_bytes=4)]),
            ExchangeRequest(parts=[Part(call_id=1, payload=b"12345")]),
        ],
        [
            ExchangeRequest(calls=[call(1, payload_bytes=4)]),
            ExchangeRequest(parts=[Part(call_id=1)]),
        ],
        [ExchangeRequest(calls=[call(1, metadata_indexes=[3])])],
        [ExchangeRequest(calls=[call(1, metadata_indexes=[4_000_000_000])])],
        [
            ExchangeRequest(
                calls=[call(1, metadata=[MetadataEntry(key="x", value=b"y", index=513)])]
            )
        ],
        [
            ExchangeRequest(
                calls=[call(1, metadata=[MetadataEntry(key="x", value=bytes(600), index=1)])]
            )
        ],
    ],
)
async def test_breaking_the_protocol_ends_the_stream(
    peer: RawPeer, frames: list[Message | bytes]
) -> None:
    await peer.send(HELLO, *frames)
    assert await peer.ended() is grpc.StatusCode.INVALID_ARGUMENT


async def test_frame_above_the_limit_ends_the_stream(peer: RawPeer) -> None:
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, payload=bytes(300_000))]))
    assert await peer.ended() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_request_above_the_limit_is_answered(peer: RawPeer) -> None:
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, payload=bytes(140_000))]))
    answer = await peer.answer()
    failure = wire.decode_details(answer.status_details, answer.message)
    assert failure is not None
    assert (failure.reason, failure.outcome) == ("MESSAGE_TOO_LARGE", wire.NOT_EXECUTED)
    await peer.send(ExchangeRequest(calls=[call(2, payload_bytes=2**31)]))
    assert (await peer.answer()).call_id == 2


async def test_request_that_is_no_message_is_answered(peer: RawPeer) -> None:
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, payload=b"\xff\xff\xff")]))
    answer = await peer.answer()
    assert answer.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    failure = wire.decode_details(answer.status_details, answer.message)
    assert failure is not None
    assert failure.reason == "MESSAGE_MALFORMED"


async def test_more_calls_than_agreed_are_answered_as_overload(peer: RawPeer, mesh: Mesh) -> None:
    waiting = [call(number, method=f"/{SERVICE}/Wait") for number in range(1, 7)]
    await peer.send(HELLO, ExchangeRequest(calls=waiting))
    refused: list[Answer] = []
    while len(refused) < 2:
        refused += list((await peer.read()).answers)
    assert [answer.call_id for answer in refused] == [5, 6]
    failure = wire.decode_details(refused[0].status_details, refused[0].message)
    assert failure is not None
    assert (failure.reason, failure.outcome) == ("OVERLOADED", wire.NOT_EXECUTED)
    mesh.probe.gate.set()
    answered: list[int] = []
    while len(answered) < 4:
        answered += [answer.call_id for answer in (await peer.read()).answers]
    assert sorted(answered) == [1, 2, 3, 4]


async def test_cancelling_what_never_was_changes_nothing(peer: RawPeer) -> None:
    await peer.send(HELLO, ExchangeRequest(cancelled_call_ids=[1, 99, 2**63]))
    await peer.send(ExchangeRequest(calls=[call(3)], cancelled_call_ids=[4]))
    assert (await peer.answer()).call_id == 3


async def test_parts_of_an_ended_call_are_dropped(peer: RawPeer) -> None:
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, payload_bytes=100)]))
    await peer.send(ExchangeRequest(cancelled_call_ids=[1]))
    await peer.send(ExchangeRequest(parts=[Part(call_id=1, payload=b"late")], calls=[call(2)]))
    assert (await peer.answer()).call_id == 2


async def test_metadata_that_is_no_text_is_taken_as_it_is(peer: RawPeer) -> None:
    odd = [*SHOP, MetadataEntry(key="x-odd", value=b"\xff\xfe"), MetadataEntry()]
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, metadata=odd)]))
    assert (await peer.answer()).code == 0


async def test_vanishing_in_mid_call_stops_the_servicer(peer: RawPeer, mesh: Mesh) -> None:
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, method=f"/{SERVICE}/Wait")]))
    await within(mesh.probe.begun.wait())
    peer.rpc.cancel()
    await within(mesh.probe.cancelled.wait())


async def test_saying_nothing_keeps_nobody_from_draining(peer: RawPeer, mesh: Mesh) -> None:
    await peer.send(HELLO)
    await peer.read()
    peer.expects_service = False
    draining = asyncio.ensure_future(mesh.far.drain(10))
    frame = await peer.read()
    assert frame.HasField("drain")
    assert frame.drain.last_call_id == 0
    assert await peer.ended() is grpc.StatusCode.OK
    await within(draining)


async def test_calling_after_a_drain_is_not_begun(peer: RawPeer, mesh: Mesh) -> None:
    """The peer names the last call that counts; one after it is left for another process."""
    wait = f"/{SERVICE}/Wait"
    await peer.send(HELLO, ExchangeRequest(calls=[call(1, method=wait)]))
    await within(mesh.probe.begun.wait())
    peer.expects_service = False
    draining = asyncio.ensure_future(mesh.far.drain(10))
    while not (frame := await peer.read()).HasField("drain"):
        pass
    assert frame.drain.last_call_id == 1
    await peer.send(ExchangeRequest(calls=[call(2, method=wait)], cancelled_call_ids=[2]))
    mesh.probe.gate.set()
    assert (await peer.answer()).call_id == 1
    assert await peer.ended() is grpc.StatusCode.OK
    await within(draining)
    assert mesh.probe.running == 0
