"""What every channel makes of callbacks: believed by signature, then held against our own rows."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode

import pytest
from outside_parties import Channels, Receiver, eventually, pay_request, refund_of, usd

from services.channel.guard import Guard, compare
from services.channel.results import (
    CallbackKind,
    CallbackSignatureInvalidError,
    PayRequest,
    RawCallback,
    ShowQrCode,
    State,
)


async def _paid(
    channels: Channels, guard: Guard, receiver: Receiver, amount_minor: int = 1234
) -> tuple[PayRequest, str, RawCallback]:
    receiver.answer = (guard.acknowledgement.status, guard.acknowledgement.body)
    request = pay_request(amount_minor, notify_url=receiver.url)
    number = await channels.pay_for_good(guard, request)
    await eventually(lambda: len(receiver.received) >= 1)
    return request, number, receiver.received[0]


async def test_callback_tells_of_the_payment(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    request, number, raw = await _paid(channels, guard, receiver)
    callback = await guard.parse_callback(raw)
    assert callback.kind is CallbackKind.PAYMENT
    assert callback.payment_reference == request.reference
    assert callback.notice_id
    result = compare(callback.result, request.reference, request.money)
    assert result.state is State.SUCCEEDED
    assert result.money == request.money
    assert result.channel_transaction_no == number
    assert result.occurred_at is not None


async def test_callback_tells_of_the_refund(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    request, number, _ = await _paid(channels, guard, receiver, 100)
    for part in (60, 40):
        before = len(receiver.received)
        refund = refund_of(request, part, number, receiver.url)
        assert (await guard.refund(refund)).state is State.SUCCEEDED
        await eventually(lambda: len(receiver.received) > before)  # noqa: B023
        callback = await guard.parse_callback(receiver.received[-1])
        assert callback.kind is CallbackKind.REFUND
        result = compare(callback.result, refund.reference, refund.money)
        assert result.state is State.SUCCEEDED


async def test_copies_of_a_callback_carry_the_same_notice_id(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    receiver.answer = (500, b"not now")
    request = pay_request(notify_url=receiver.url)
    await channels.pay_for_good(guard, request)
    await eventually(lambda: len(receiver.received) >= 3)
    receiver.answer = (guard.acknowledgement.status, guard.acknowledgement.body)
    copies = [await guard.parse_callback(raw) for raw in receiver.received[:3]]
    assert len({copy.notice_id for copy in copies}) == 1


async def test_refused_callback_is_repeated_until_acknowledged(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    receiver.answer = (guard.refusal.status, guard.refusal.body)
    await channels.pay_for_good(guard, pay_request(notify_url=receiver.url))
    await eventually(lambda: len(receiver.received) >= 2)


def _changed(raw: RawCallback, **changes: str) -> RawCallback:
    fields = dict(parse_qsl(raw.body.decode(), keep_blank_values=True))
    return RawCallback(body=urlencode({**fields, **changes}).encode())


async def test_changed_callback_is_not_believed(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    _, _, raw = await _paid(channels, guard, receiver)
    for changes in (
        {"total_amount": "99999.00", "txnAmt": "9999900"},
        {"out_trade_no": "pay0", "orderId": "pay0"},
        {"sign": "", "signature": ""},
        {"sign": "AAAA", "signature": "AAAA"},
        {"sign": "§", "signature": "§"},
    ):
        with pytest.raises(CallbackSignatureInvalidError):
            await guard.parse_callback(_changed(raw, **changes))


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"a=b", b"{}", b"sign=&app_id=&merId="])
async def test_bytes_that_nobody_signed_are_not_believed(guard: Guard, body: bytes) -> None:
    with pytest.raises(CallbackSignatureInvalidError):
        await guard.parse_callback(RawCallback(body=body))


async def test_callback_of_another_contract_is_not_believed(
    channels: Channels, guard: Guard, code: str, receiver: Receiver
) -> None:
    _, _, raw = await _paid(channels, guard, receiver)
    other = channels.guard(code[:-1] + ("b" if code.endswith("a") else "a"))
    with pytest.raises(CallbackSignatureInvalidError):
        await other.parse_callback(raw)


async def test_callback_signed_by_a_strange_key_is_not_believed(
    channels: Channels, receiver: Receiver
) -> None:
    """Right fields, right form, but the key is not the one that the contract names."""
    theirs = channels.credentials.channels["alipay_b"].config["alipay_public_key"]
    _, _, raw = await _paid(channels, channels.guard("alipay_a"), receiver)
    with pytest.raises(CallbackSignatureInvalidError):
        await channels.guard("alipay_a", alipay_public_key=theirs).parse_callback(raw)
    receiver.received.clear()
    _, _, raw = await _paid(channels, channels.guard("unionpay_a"), receiver)
    with pytest.raises(CallbackSignatureInvalidError):
        await channels.guard("unionpay_a", signer_name="nobody").parse_callback(raw)


async def test_callback_with_another_amount_is_a_conflict(
    channels: Channels, guard: Guard, receiver: Receiver
) -> None:
    request, _, raw = await _paid(channels, guard, receiver, 1234)
    result = (await guard.parse_callback(raw)).result
    assert compare(result, request.reference, usd(1235)).state is State.CONFLICT
    assert compare(result, "payother", request.money).conflict == "reference"


async def test_refusing_payer_is_told_by_callback(channels: Channels, receiver: Receiver) -> None:
    guard = channels.guard("alipay_a")
    request = pay_request(notify_url=receiver.url)
    result = await guard.pay(request)
    assert isinstance(result.next_action, ShowQrCode)
    await channels.scan(result.next_action.content, "refuse")
    await eventually(lambda: len(receiver.received) >= 1)
    callback = await guard.parse_callback(receiver.received[0])
    assert callback.result.state is State.CLOSED
    assert callback.result.decline is not None


async def test_void_is_told_by_callback(channels: Channels, receiver: Receiver) -> None:
    guard = channels.guard("unionpay_a")
    request, number, _ = await _paid(channels, guard, receiver)
    before = len(receiver.received)
    void = refund_of(request, request.money.amount_minor, number, receiver.url)
    await guard.void(void)
    await eventually(lambda: len(receiver.received) > before)
    callback = await guard.parse_callback(receiver.received[-1])
    assert callback.kind is CallbackKind.VOID
    assert callback.result.reference == void.reference
