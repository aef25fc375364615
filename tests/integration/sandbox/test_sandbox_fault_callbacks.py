"""Each fault of a callback, at each party: what comes, in which order, and that the truth comes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from outside_parties import (
    Channels,
    Receiver,
    eventually,
    fault,
    misbehave,
    moved,
    pay_request,
    question_of,
    refund_of,
    usd,
)

from services.channel.guard import Guard
from services.channel.results import (
    CallbackKind,
    CallbackSignatureInvalidError,
    PayRequest,
    RawCallback,
    ShowQrCode,
    State,
)
from services.sandbox.faults.plan import FaultKind
from services.sandbox.serving import Sandbox

BOTH = pytest.mark.parametrize("code", ["alipay_a", "unionpay_a"])


@dataclass(frozen=True)
class _Heard:
    state: State | None
    """None when the signature is wrong."""
    reference: str = ""
    amount_minor: int | None = None
    kind: CallbackKind | None = None


async def _heard(guard: Guard, raws: Sequence[RawCallback]) -> list[_Heard]:
    heard = []
    for raw in raws:
        try:
            callback = await guard.parse_callback(raw)
        except CallbackSignatureInvalidError:
            heard.append(_Heard(None))
            continue
        result = callback.result
        amount_minor = None if result.money is None else result.money.amount_minor
        heard.append(_Heard(result.state, result.reference, amount_minor, callback.kind))
    return heard


async def _pay(channels: Channels, guard: Guard, receiver: Receiver) -> PayRequest:
    """Pay 500, with callbacks acknowledged as the party wants it."""
    receiver.answer = (guard.acknowledgement.status, guard.acknowledgement.body)
    request = pay_request(500, notify_url=receiver.url)
    await channels.pay_for_good(guard, request)
    return request


def _payment(request: PayRequest, state: State, amount_minor: int = 500) -> _Heard:
    return _Heard(state, request.reference, amount_minor, CallbackKind.PAYMENT)


async def _settled(sandbox: Sandbox) -> None:
    """Wait until no callback is owed."""

    async def owed() -> int:
        query = "SELECT count(*) FROM notices WHERE acknowledged_at IS NULL"
        return int((await sandbox.store.run(lambda db: db.execute(query).fetchone()))[0])

    async with asyncio.timeout(10):
        while await owed():  # noqa: ASYNC110 - asks the disk
            await asyncio.sleep(0.01)


@BOTH
async def test_doubled_callback_comes_twice_the_same(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_DOUBLE))
    await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 2)
    assert receiver.received[0].body == receiver.received[1].body
    await _settled(sandbox)
    assert len(receiver.received) == 2


@BOTH
async def test_late_callback_comes_after_the_delay(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_LATE, delay_ms=300_000, hits_max=1))
    late = await _pay(channels, guard, receiver)
    prompt = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 1)
    assert await _heard(guard, receiver.received) == [_payment(prompt, State.SUCCEEDED)]
    ((due_in,),) = await sandbox.store.run(
        lambda db: db.execute(
            "SELECT next_at - unixepoch() FROM notices WHERE acknowledged_at IS NULL"
        ).fetchall()
    )
    assert 200 < due_in < 301
    assert (await guard.query(question_of(late))).state is State.SUCCEEDED


@BOTH
async def test_early_callback_comes_before_the_answer(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_EARLY))
    for number in range(1, 6):
        request = await _pay(channels, guard, receiver)
        # No waiting here: the answer came after the callback.
        assert len(receiver.received) == 2 * number - 1
        found = await guard.query(question_of(request))
        refund = refund_of(request, 500, found.channel_transaction_no, receiver.url)
        assert (await guard.refund(refund)).state is State.SUCCEEDED
        assert len(receiver.received) == 2 * number
    heard = await _heard(guard, receiver.received)
    assert {one.state for one in heard} == {State.SUCCEEDED}
    assert [one.kind for one in heard] == [CallbackKind.PAYMENT, CallbackKind.REFUND] * 5


@BOTH
async def test_early_callback_that_nobody_takes_does_not_keep_the_answer(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_EARLY))
    request = pay_request(500, notify_url="http://127.0.0.1:9/nobody-here")
    await channels.pay_for_good(guard, request)


@BOTH
async def test_older_callback_follows_the_newer(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_REORDERED))
    request = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 2)
    assert await _heard(guard, receiver.received) == [
        _payment(request, State.SUCCEEDED),
        _payment(request, State.PENDING),
    ]
    await _settled(sandbox)
    assert len(receiver.received) == 2
    assert (await guard.query(question_of(request))).state is State.SUCCEEDED


@BOTH
async def test_contradiction_follows_the_truth(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_CONTRADICTORY))
    request = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 2)
    denied = State.CLOSED if code == "alipay_a" else State.FAILED
    assert await _heard(guard, receiver.received) == [
        _payment(request, State.SUCCEEDED),
        _payment(request, denied),
    ]
    assert (await guard.query(question_of(request))).state is State.SUCCEEDED
    assert len(await moved(sandbox)) == 1


@BOTH
async def test_wrong_amount_comes_before_the_right_one(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_WRONG_AMOUNT))
    request = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 2)
    assert await _heard(guard, receiver.received) == [
        _payment(request, State.SUCCEEDED, 600),
        _payment(request, State.SUCCEEDED, 500),
    ]
    numbers = {(await guard.parse_callback(raw)).notice_id for raw in receiver.received}
    assert len(numbers) == 2
    assert (await guard.query(question_of(request))).money == usd(500)
    assert [one[2] for one in await moved(sandbox)] == [500]


@BOTH
async def test_wrong_signature_comes_once_before_the_right_one(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    """Refused, it is not repeated; the right one follows all the same, until it is taken."""
    guard = channels.guard(code)
    receiver.answer = (500, b"no")
    await misbehave(sandbox, fault(FaultKind.CALLBACK_WRONG_SIGNATURE))
    request = pay_request(500, notify_url=receiver.url)
    await channels.pay_for_good(guard, request)
    await eventually(lambda: len(receiver.received) >= 3)
    receiver.answer = (200, guard.acknowledgement.body)
    await _settled(sandbox)
    heard = await _heard(guard, receiver.received)
    assert heard[0].state is None
    assert set(heard[1:]) == {_payment(request, State.SUCCEEDED)}


@BOTH
async def test_unknown_reference_is_told_and_nothing_moved(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    await misbehave(sandbox, fault(FaultKind.CALLBACK_UNKNOWN_REFERENCE))
    request = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 2)
    heard = await _heard(guard, receiver.received)
    assert _payment(request, State.SUCCEEDED) in heard
    (strange,) = [one for one in heard if one.reference != request.reference]
    assert (strange.state, strange.amount_minor) == (State.SUCCEEDED, 500)
    assert len(strange.reference) == len(request.reference)
    asked = pay_request(500)
    question = question_of(asked)
    assert (await guard.query(question)).state is State.NOT_FOUND
    assert len(await moved(sandbox)) == 1


@BOTH
async def test_callbacks_of_refunds_go_wrong_as_well(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    request = await _pay(channels, guard, receiver)
    await eventually(lambda: len(receiver.received) >= 1)
    receiver.received.clear()
    number = (await guard.query(question_of(request))).channel_transaction_no
    kinds = [
        FaultKind.CALLBACK_WRONG_SIGNATURE,
        FaultKind.CALLBACK_WRONG_AMOUNT,
        FaultKind.CALLBACK_DOUBLE,
        FaultKind.CALLBACK_REORDERED,
        FaultKind.CALLBACK_CONTRADICTORY,
        FaultKind.CALLBACK_UNKNOWN_REFERENCE,
    ]
    await misbehave(sandbox, *(fault(kind) for kind in kinds))
    refund = refund_of(request, 200, number, receiver.url)
    assert (await guard.refund(refund)).state is State.SUCCEEDED
    await eventually(lambda: len(receiver.received) >= 5)
    await _settled(sandbox)
    heard = await _heard(guard, receiver.received)
    assert heard[0].state is None
    told = [one for one in heard[1:] if one.kind is CallbackKind.REFUND]
    assert {one.reference for one in told} == {refund.reference}
    states = [one.state for one in told]
    if code == "alipay_a":
        assert states == [State.SUCCEEDED] * 3
        # The older one is the payment's own, once more.
        assert heard[4] == _payment(request, State.SUCCEEDED)
        assert (await sandbox.conduct.read_plan())[1] == [1, 1, 1, 1, 0, 0]
    else:
        assert states[:3] == [State.SUCCEEDED] * 3
        assert sorted(str(one) for one in states[3:]) == ["FAILED", "PENDING"]
        assert told[0].amount_minor == 300
        assert (await sandbox.conduct.read_plan())[1] == [1, 1, 1, 1, 1, 0]
    assert (await guard.query_refund(refund)).state is State.SUCCEEDED


@BOTH
async def test_everything_at_once_still_tells_the_truth_at_least_once(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str
) -> None:
    guard = channels.guard(code)
    kinds = [kind for kind in FaultKind if kind.value.startswith("CALLBACK_")]
    await misbehave(
        sandbox, *(fault(kind, delay_ms=50, rate_ppm=500_000) for kind in kinds), seed=5
    )
    requests = [await _pay(channels, guard, receiver) for _ in range(15)]
    await eventually(lambda: len(receiver.received) >= 15)
    await _settled(sandbox)
    heard = await _heard(guard, receiver.received)
    for request in requests:
        assert _payment(request, State.SUCCEEDED) in heard
    assert len(await moved(sandbox)) == 15
    _, hits = await sandbox.conduct.read_plan()
    assert all(hits)


async def test_cancelling_payer_is_told_twice_but_never_of_money(
    channels: Channels, sandbox: Sandbox, receiver: Receiver
) -> None:
    guard = channels.guard("alipay_a")
    kinds = [kind for kind in FaultKind if kind.value.startswith("CALLBACK_")]
    await misbehave(sandbox, *(fault(kind, delay_ms=1) for kind in kinds))
    request = pay_request(notify_url=receiver.url)
    result = await guard.pay(request)
    assert isinstance(result.next_action, ShowQrCode)
    assert await channels.scan(result.next_action.content, "refuse") == 200
    await eventually(lambda: len(receiver.received) >= 3)
    await _settled(sandbox)
    states = [one.state for one in await _heard(guard, receiver.received)]
    assert states == [None, State.CLOSED, State.CLOSED]
    assert await moved(sandbox) == []
