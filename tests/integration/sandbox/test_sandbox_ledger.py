"""The parties' own ledger tells each movement once, whatever was asked how often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc.aio
import pytest
from outside_parties import Channels, outcome_of, pay_request, refund_of
from paymesh.sandbox.v1 import (
    MOVEMENT_KIND_PAYMENT,
    MOVEMENT_KIND_REFUND,
    MOVEMENT_KIND_VOID,
    ListMovementsRequest,
    SandboxServiceStub,
    add_SandboxServiceServicer_to_server,
)

from common.errors import PageTokenInvalidError
from services.channel.results import ShowQrCode, State
from services.sandbox.cards import CardBehaviour
from services.sandbox.server import SandboxServicer
from services.sandbox.serving import Sandbox


@pytest.fixture
async def stub(sandbox: Sandbox) -> AsyncIterator[SandboxServiceStub]:
    """The sandbox's contract over plain gRPC."""
    server = grpc.aio.server()
    add_SandboxServiceServicer_to_server(SandboxServicer(sandbox), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield SandboxServiceStub(channel)
    await server.stop(None)


async def test_listing_tells_payments_refunds_and_voids(
    channels: Channels, stub: SandboxServiceStub
) -> None:
    qr, card = channels.guard("alipay_a"), channels.guard("unionpay_a")
    scanned, charged, taken_back = pay_request(500), pay_request(300), pay_request(50)
    scanned_number = await channels.pay_for_good(qr, scanned)
    charged_number = await channels.pay_for_good(card, charged)
    refund = refund_of(scanned, 120, scanned_number)
    assert (await qr.refund(refund)).state is State.SUCCEEDED
    void = refund_of(taken_back, 50, await channels.pay_for_good(card, taken_back))
    assert (await card.void(void)).state is State.SUCCEEDED
    await outcome_of(card.pay(pay_request(behaviour=CardBehaviour.INSUFFICIENT_FUNDS)))
    await qr.pay(pay_request())  # a code that nobody scans

    answer = await stub.ListMovements(ListMovementsRequest())
    told = [
        (one.party, one.kind, one.reference, one.payment_reference, one.money.amount_minor)
        for one in answer.movements
    ]
    assert told == [
        ("alipay", MOVEMENT_KIND_PAYMENT, scanned.reference, "", 500),
        ("unionpay", MOVEMENT_KIND_PAYMENT, charged.reference, "", 300),
        ("alipay", MOVEMENT_KIND_REFUND, refund.reference, scanned.reference, 120),
        ("unionpay", MOVEMENT_KIND_PAYMENT, taken_back.reference, "", 50),
        ("unionpay", MOVEMENT_KIND_VOID, void.reference, taken_back.reference, 50),
    ]
    assert {one.money.currency_code for one in answer.movements} == {"USD"}
    assert [one.movement_id for one in answer.movements] == [1, 2, 3, 4, 5]
    numbers = [one.channel_transaction_no for one in answer.movements]
    assert numbers[:2] == [scanned_number, charged_number]
    only = await stub.ListMovements(ListMovementsRequest(party="unionpay"))
    assert len(only.movements) == 3


async def test_listing_goes_page_by_page(channels: Channels, stub: SandboxServiceStub) -> None:
    card = channels.guard("unionpay_a")
    for amount_minor in (1, 2, 3, 4, 5):
        await channels.pay_for_good(card, pay_request(amount_minor))
    amounts, token, pages = [], "", 0
    while pages == 0 or token:
        page = await stub.ListMovements(ListMovementsRequest(page_size=2, page_token=token))
        amounts += [one.money.amount_minor for one in page.movements]
        token, pages = page.next_page_token, pages + 1
    assert amounts == [1, 2, 3, 4, 5]
    assert pages == 3


async def test_listing_refuses_a_strange_token(sandbox: Sandbox) -> None:
    with pytest.raises(PageTokenInvalidError):
        await SandboxServicer(sandbox).ListMovements(
            ListMovementsRequest(page_token="x"),
            None,  # type: ignore[arg-type]
        )


async def test_simultaneous_copies_move_the_money_once(
    channels: Channels, stub: SandboxServiceStub
) -> None:
    qr, card = channels.guard("alipay_a"), channels.guard("unionpay_a")
    scanned, charged = pay_request(500), pay_request(300)
    results = await asyncio.gather(*(qr.pay(scanned) for _ in range(8)))
    codes = {one.next_action for one in results}
    assert len(codes) == 1
    (code,) = codes
    assert isinstance(code, ShowQrCode)
    statuses = await asyncio.gather(*(channels.scan(code.content) for _ in range(8)))
    assert set(statuses) == {200}
    results = await asyncio.gather(*(card.pay(charged) for _ in range(8)))
    assert {one.state for one in results} == {State.SUCCEEDED}
    number = results[0].channel_transaction_no
    refunds = [refund_of(charged, 100, number) for _ in range(8)]
    said = await asyncio.gather(*(outcome_of(card.refund(one)) for one in refunds))
    assert sum(getattr(one, "state", None) is State.SUCCEEDED for one in said) == 3
    answer = await stub.ListMovements(ListMovementsRequest())
    paid = [m for m in answer.movements if m.kind == MOVEMENT_KIND_PAYMENT]
    assert sorted(m.money.amount_minor for m in paid) == [300, 500]
    assert len(answer.movements) == 5
