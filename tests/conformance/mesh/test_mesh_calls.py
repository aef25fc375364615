"""What every call can rely on, whichever way it travels."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc
import grpc.aio
import pytest
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]
from paymesh.mesh import errors as wire
from paymesh.mesh.v1 import EchoRequest, EchoResponse, EchoServiceStub

from common.context import CallContext, Principal, bound, current
from common.errors import Outcome, RemoteError, Retry
from common.mesh.principal_token import PRINCIPAL_KEY
from tests.conformance.mesh.conftest import StartMesh
from tests.conformance.mesh.mesh_kit import (
    STORY,
    Mesh,
    caller_metadata,
    eventually,
    method_on,
    within,
)
from tests.conformance.mesh.probe import SEEN

SHOP = caller_metadata("shop")
OTHER_END = "0" if SHOP[0][1][-1] != "0" else "1"


def trailing_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """Return the trailing metadata of a failed call."""
    pairs: Any = error.trailing_metadata()
    return dict(list(pairs))


async def test_calling_returns_the_response(mesh: Mesh) -> None:
    response = await mesh.method("Echo")(EchoRequest(message="hello", payload=b"\x00\xff"))
    assert (response.message, response.payload) == ("hello", b"\x00\xff")


async def test_calling_many_at_once_answers_each(mesh: Mesh) -> None:
    echo = mesh.method("Echo")
    answers = await asyncio.gather(*(echo(EchoRequest(message=str(i))) for i in range(300)))
    assert [answer.message for answer in answers] == [str(i) for i in range(300)]


async def test_calling_with_empty_messages_answers(mesh: Mesh) -> None:
    assert (await mesh.method("Echo")(EchoRequest())).message == ""


async def test_refusing_arrives_with_reason_outcome_retry_and_metadata(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Refuse")(EchoRequest(message="trd_1"))
    error = caught.value
    assert error.remote_reason == "NOT_FOUND"
    assert (error.outcome, error.retry) == (Outcome.NOT_EXECUTED, Retry.NEW_ID)
    assert error.metadata == {"resource": "order", "id": "trd_1"}
    assert error.message == "There is no order with this id."


async def test_refusing_has_the_status_of_plain_grpc(mesh: Mesh) -> None:
    """A client without our code reads the same from a stream as from a call of its own."""
    call = method_on(mesh.raw(), "Refuse")(EchoRequest(message="x"), timeout=5, metadata=SHOP)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert await call.code() is grpc.StatusCode.NOT_FOUND
    status = status_pb2.Status.FromString(trailing_of(error)[wire.DETAILS_KEY])
    info = error_details_pb2.ErrorInfo()
    assert status.code == 5
    assert status.message == error.details()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NOT_FOUND", "paymesh")
    assert info.metadata["outcome"] == "NOT_EXECUTED"


async def test_crashing_says_internal_and_nothing_of_its_own(
    mesh: Mesh, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL), pytest.raises(RemoteError) as caught:
        await mesh.method("Crash")(EchoRequest())
    assert caught.value.remote_reason == "INTERNAL"
    assert caught.value.outcome is Outcome.UNKNOWN
    assert "4111" not in f"{caught.value} {caught.value.metadata}"


async def test_aborting_keeps_code_text_and_trailing_metadata(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(mesh.raw(), "Abort")(EchoRequest(), timeout=5, metadata=SHOP)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS
    assert caught.value.details() == "gone"
    assert trailing_of(caught.value)["why"] == "because"


async def test_setting_a_code_fails_the_call(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(mesh.raw(), "SetCode")(EchoRequest(), timeout=5, metadata=SHOP)
    assert caught.value.code() is grpc.StatusCode.OUT_OF_RANGE
    assert caught.value.details() == "too far"


async def test_relaying_a_failure_makes_its_outcome_unknown(mesh: Mesh) -> None:
    """What a third service did not do says nothing about what the second had done before."""
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Relay")(EchoRequest())
    assert caught.value.remote_reason == "INSUFFICIENT_FUNDS"
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.metadata == {"account_id": "acc_1"}


async def test_deadline_fails_the_caller_and_stops_the_servicer(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await within(mesh.method("Wait")(EchoRequest(), timeout=0.1))
    assert caught.value.remote_reason == "DEADLINE_EXCEEDED"
    assert caught.value.outcome is Outcome.UNKNOWN
    await within(mesh.probe.cancelled.wait())
    await eventually(lambda: mesh.far.calls_in_flight == 0, "no call is in flight")


async def test_deadline_that_has_passed_keeps_the_call(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Wait")(EchoRequest(), timeout=0)
    assert caught.value.remote_reason == "DEADLINE_EXCEEDED"
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert not mesh.probe.begun.is_set()


async def test_deadline_without_time_for_an_answer_is_refused(
    way: str, start_mesh: StartMesh
) -> None:
    mesh = await start_mesh(way, deadline_reserve_seconds=60)
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Wait")(EchoRequest(), timeout=5)
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert not mesh.probe.begun.is_set()


async def test_deadline_of_the_outer_call_holds_for_inner_ones(mesh: Mesh) -> None:
    inherited = CallContext(deadline_at=asyncio.get_running_loop().time() + 2)
    with bound(inherited):
        longer = await mesh.method("Echo")(EchoRequest(), timeout=60)
        shorter = await mesh.method("Echo")(EchoRequest(), timeout=1)
    # Plain gRPC rounds a deadline up, by a hundredth at most.
    assert 0 < longer.timeout_microseconds <= 2_020_000
    assert 0 < shorter.timeout_microseconds <= 1_010_000


async def test_deadline_is_given_to_calls_that_name_none(mesh: Mesh) -> None:
    response = await mesh.method("Echo")(EchoRequest())
    assert 0 < response.timeout_microseconds <= 5_050_000


async def test_missing_deadline_is_refused(mesh: Mesh) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(mesh.raw(), "Echo")(EchoRequest(), metadata=SHOP)
    failure = wire.decode(caught.value)
    assert (failure.reason, failure.metadata["field"]) == ("FIELD_INVALID", "grpc-timeout")


async def test_cancelling_the_task_reaches_the_servicer(mesh: Mesh) -> None:
    task = asyncio.ensure_future(mesh.method("Wait")(EchoRequest(), timeout=30))
    await within(mesh.probe.begun.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await within(mesh.probe.cancelled.wait())
    await eventually(lambda: mesh.far.calls_in_flight == 0, "no call is in flight")


async def test_cancelling_the_call_reaches_the_servicer(mesh: Mesh) -> None:
    call = method_on(mesh.raw(), "Wait")(EchoRequest(), timeout=30, metadata=SHOP)
    await within(mesh.probe.begun.wait())
    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    await within(mesh.probe.cancelled.wait())


async def test_cancelling_at_once_leaves_nothing_behind(mesh: Mesh) -> None:
    call = method_on(mesh.raw(), "Wait")(EchoRequest(), timeout=30, metadata=SHOP)
    call.cancel()
    assert (await mesh.method("Echo")(EchoRequest(message="next"))).message == "next"
    await eventually(lambda: mesh.probe.running == 0, "nothing runs")


async def test_metadata_travels_both_ways(mesh: Mesh) -> None:
    sent = (("x-text", "a"), ("x-text", "b"), ("x-raw-bin", b"\x00\xfe"))
    call = method_on(mesh.raw(), "Metadata")(EchoRequest(), timeout=5, metadata=(*SHOP, *sent))
    await call
    assert sorted(await call.trailing_metadata()) == sorted(sent)
    assert ("x-begun", "yes") in list(await call.initial_metadata())
    assert await call.code() is grpc.StatusCode.OK


async def test_metadata_that_changes_is_read_anew(mesh: Mesh) -> None:
    """More values than a stream keeps, and each of them twice."""
    method = method_on(mesh.raw(), "Metadata")
    for number in [*range(700), *range(700)]:
        call = method(
            EchoRequest(), timeout=5, metadata=(*SHOP, ("x-number", str(number)), ("x-same", "s"))
        )
        await call
        assert sorted(await call.trailing_metadata()) == [
            ("x-number", str(number)),
            ("x-same", "s"),
        ]


async def test_story_principal_and_lane_arrive(mesh: Mesh) -> None:
    with bound(STORY):
        response = await mesh.method("Echo")(EchoRequest())
    assert response.biz_trace_id == "btr_1"
    assert response.lane == "canary"
    assert response.principal == "mer_1/TEST/MERCHANT:key_1"
    assert response.caller == "shop"


async def test_calling_without_a_principal_acts_as_the_service(mesh: Mesh) -> None:
    response = await mesh.method("Echo")(EchoRequest())
    assert response.principal == "/LIVE/SERVICE:shop"


async def test_principal_that_was_tampered_with_is_refused(mesh: Mesh) -> None:
    token = b"\x0a\x02xx\x12\x20" + bytes(32) + b"\x1a\x02p1\x20\xff\xff\xff\xff\x0f"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(mesh.raw(), "Echo")(
            EchoRequest(), timeout=5, metadata=(*SHOP, (PRINCIPAL_KEY, token))
        )
    assert wire.decode(caught.value).reason == "UNAUTHENTICATED"


async def test_caller_that_the_table_does_not_name_is_refused(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Wait", caller="stranger")(EchoRequest())
    assert caught.value.remote_reason == "PERMISSION_DENIED"
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert caught.value.metadata["caller"] == "stranger"
    assert not mesh.probe.begun.is_set()


async def test_role_that_the_table_asks_for_decides(mesh: Mesh) -> None:
    echo = mesh.method("Echo", caller="clerk")
    with pytest.raises(RemoteError, match="may not call"):
        await echo(EchoRequest())
    with bound(CallContext(principal=Principal(actor_id="ann", roles=("approver",)))):
        assert (await echo(EchoRequest(message="ok"))).message == "ok"


@pytest.mark.parametrize("way", ["stream", "unary"], indirect=True)
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "PERMISSION_DENIED"),
        ((("paymesh-caller", "shop"),), "UNAUTHENTICATED"),
        ((("paymesh-caller", SHOP[0][1].replace("shop", "clerk")),), "UNAUTHENTICATED"),
        ((("paymesh-caller", SHOP[0][1][:-1] + OTHER_END),), "UNAUTHENTICATED"),
    ],
)
async def test_caller_without_proof_is_refused(
    mesh: Mesh, metadata: tuple[tuple[str, str], ...], reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method_on(mesh.raw(), "Echo")(EchoRequest(), timeout=5, metadata=metadata)
    assert wire.decode(caught.value).reason == reason


async def test_breaking_a_rule_of_the_contract_names_the_field(mesh: Mesh) -> None:
    stub = EchoServiceStub(mesh.near.channel("shop", "probe"))
    with pytest.raises(RemoteError) as caught:
        await stub.Echo(EchoRequest(number=-1, message="x" * 2_000))
    assert caught.value.remote_reason == "FIELD_INVALID"
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert caught.value.field in ("number", "message")
    raw = EchoServiceStub(mesh.raw())
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await raw.Echo(EchoRequest(number=-1, message="x" * 2_000), timeout=5)
    details = trailing_of(failed.value)[wire.DETAILS_KEY]
    bad = error_details_pb2.BadRequest()
    found = [one for one in status_pb2.Status.FromString(details).details if one.Unpack(bad)]
    assert len(found) == 1
    assert {violation.field for violation in bad.field_violations} == {"number", "message"}


async def test_calling_an_unknown_method_says_so(mesh: Mesh) -> None:
    for service in ("paymesh.probe.v1.ProbeService", "paymesh.nowhere.v1.NoService"):
        method = method_on(mesh.near.channel("shop", "probe"), "Nothing", service)
        with pytest.raises(RemoteError) as caught:
            await method(EchoRequest())
        assert caught.value.remote_reason == "METHOD_UNKNOWN"
        assert caught.value.outcome is Outcome.NOT_EXECUTED
        assert caught.value.metadata == {"method": f"/{service}/Nothing"}


async def test_calling_a_full_process_is_refused_unbegun(way: str, start_mesh: StartMesh) -> None:
    mesh = await start_mesh(way, calls_in_flight_max=2)
    wait = mesh.method("Wait")
    held = [asyncio.ensure_future(wait(EchoRequest(message=str(i)))) for i in range(2)]
    await eventually(lambda: mesh.probe.running == 2, "both calls run")
    with pytest.raises(RemoteError) as caught:
        await wait(EchoRequest())
    assert caught.value.remote_reason == "OVERLOADED"
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert caught.value.retry is Retry.AFTER_DELAY
    assert caught.value.retry_after_seconds is not None
    mesh.probe.gate.set()
    assert [answer.message for answer in await asyncio.gather(*held)] == ["0", "1"]
    assert (await mesh.method("Echo")(EchoRequest(message="room"))).message == "room"


async def test_refusal_of_a_full_process_is_repeated(way: str, start_mesh: StartMesh) -> None:
    """A call that surely did nothing is sent again by itself."""
    mesh = await start_mesh(way, calls_in_flight_max=1, retries_max=8)
    held = asyncio.ensure_future(mesh.method("Wait")(EchoRequest()))
    await within(mesh.probe.begun.wait())
    repeated = asyncio.ensure_future(mesh.method("Echo")(EchoRequest(message="again")))
    await asyncio.sleep(0)
    mesh.probe.gate.set()
    assert (await within(repeated)).message == "again"
    await held


async def test_large_messages_arrive_whole(mesh: Mesh) -> None:
    payload = bytes(range(256)) * 12_000
    response = await mesh.method("Echo")(EchoRequest(payload=payload))
    assert response.payload == payload


async def test_request_above_the_limit_is_refused_with_its_own_reason(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Wait")(EchoRequest(payload=bytes(4_194_400)))
    assert caught.value.remote_reason == "MESSAGE_TOO_LARGE"
    assert caught.value.outcome is Outcome.NOT_EXECUTED
    assert caught.value.metadata == {"limit_bytes": "4194304"}
    assert not mesh.probe.begun.is_set()


async def test_response_above_the_limit_says_that_it_was_executed(mesh: Mesh) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Answer")(EchoRequest(number=4_194_400))
    assert caught.value.remote_reason == "MESSAGE_TOO_LARGE"
    assert caught.value.outcome is Outcome.EXECUTED


async def test_messages_are_copies(mesh: Mesh) -> None:
    """Neither side sees what the other does to its message afterwards."""
    request = EchoRequest(message="as sent")
    call = asyncio.ensure_future(mesh.method("Keep")(request))
    await within(mesh.probe.begun.wait())
    request.message = "changed by the caller"
    assert mesh.probe.received[0].message == "as sent"
    mesh.probe.gate.set()
    response = await call
    assert response.message == "as sent"
    assert request.message == "changed by the caller"
    mesh.probe.answered[0].message = "changed later"
    assert response.message == "as sent"


async def test_servicer_runs_in_a_context_of_its_own(mesh: Mesh) -> None:
    SEEN.set("the caller's")
    mark = mesh.method("Mark")
    assert (await mark(EchoRequest(message="first"))).message == "nothing"
    assert (await mark(EchoRequest(message="second"))).message == "nothing"
    assert SEEN.get() == "the caller's"
    assert current() == CallContext()


@pytest.mark.parametrize("number", [0, 1])
async def test_service_whose_database_is_away_is_unavailable(mesh: Mesh, number: int) -> None:
    with pytest.raises(RemoteError) as caught:
        await mesh.method("Lose")(EchoRequest(number=number))
    assert caught.value.remote_reason == "UNAVAILABLE"
    assert (caught.value.outcome, caught.value.retry) == (Outcome.UNKNOWN, Retry.SAME_ID)
    assert "nobody listens" not in str(caught.value)


async def test_draining_answers_what_was_accepted(way: str, start_mesh: StartMesh) -> None:
    mesh = await start_mesh(way)
    held = asyncio.ensure_future(mesh.method("Wait")(EchoRequest(message="held"), timeout=20))
    await within(mesh.probe.begun.wait())
    draining = asyncio.ensure_future(mesh.far.drain(10))
    _, pending = await asyncio.wait({draining}, timeout=0.05)
    assert pending
    mesh.probe.gate.set()
    assert (await within(held)).message == "held"
    await within(draining)


async def test_draining_gives_up_at_its_time(way: str, start_mesh: StartMesh) -> None:
    mesh = await start_mesh(way)
    held = asyncio.ensure_future(mesh.method("Wait")(EchoRequest(), timeout=20))
    await within(mesh.probe.begun.wait())
    await within(mesh.far.drain(0.1))
    if way == "local":
        held.cancel()
        return
    with pytest.raises(RemoteError) as caught:
        await within(held)
    assert caught.value.outcome is Outcome.UNKNOWN


async def test_awaiting_a_response_type_is_the_stubs(mesh: Mesh) -> None:
    assert isinstance(await mesh.method("Echo")(EchoRequest()), EchoResponse)
