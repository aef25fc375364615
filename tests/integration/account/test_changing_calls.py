"""Changing accounts through the contract: limits, buffering, status; and who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date

import pytest
from hosted_services import calling, operator_call
from paymesh.account.v1 import (
    ACCOUNT_STATUS_DEBIT_FROZEN,
    TRANSFER_KIND_PENDING,
    TRANSFER_STATUS_BOOKED,
    Account,
    AccountSpec,
    SetAccountBufferingRequest,
    SetAccountLimitsRequest,
    SetAccountStatusRequest,
)

from common.errors import RemoteError
from services.account.flows.cut_day import open_book
from services.account.store.days import DayStore
from tests.integration.account.ledger_rpc import LedgerRpc, serving_ledger


@pytest.fixture(scope="module")
async def served(database_url: str) -> AsyncIterator[LedgerRpc]:
    """The account service, hosted for this module."""
    async with serving_ledger(database_url) as ledger:
        yield ledger


@pytest.fixture
async def ledger(served: LedgerRpc) -> LedgerRpc:
    """With a cast of its own."""
    await served.open_cast()
    return served


async def set_limits(
    ledger: LedgerRpc, account: Account, request_id: str, limit: int = 0, court: int = 0
) -> Account:
    """Set both limits."""
    request = SetAccountLimitsRequest(
        request_id=request_id,
        account_id=account.id,
        credit_limit_minor=limit,
        court_frozen_minor=court,
        expected_version=account.version,
        reason="court order 17",
    )
    answer = await calling(
        operator_call("operator"), lambda: ledger.operator.SetAccountLimits(request)
    )
    changed: Account = answer.account
    return changed


async def set_buffering(
    ledger: LedgerRpc, account: Account, request_id: str, *, is_buffered: bool
) -> Account:
    """Turn buffering on or off."""
    request = SetAccountBufferingRequest(
        request_id=request_id,
        account_id=account.id,
        is_buffered=is_buffered,
        expected_version=account.version,
        reason="a busy shop",
    )
    answer = await calling(
        operator_call("operator"), lambda: ledger.operator.SetAccountBuffering(request)
    )
    changed: Account = answer.account
    return changed


async def test_limiting_an_account_decides_what_it_may_spend(ledger: LedgerRpc) -> None:
    account = (await ledger.accounts())["A"]
    limited = await set_limits(ledger, account, "limit-1", limit=50)
    assert (limited.credit_limit_minor, limited.version) == (50, account.version + 1)
    assert await set_limits(ledger, account, "limit-1", limit=50) == limited
    with pytest.raises(RemoteError) as conflict:
        await set_limits(ledger, account, "limit-1", limit=60)
    assert conflict.value.remote_reason == "ID_CONFLICT"
    with pytest.raises(RemoteError) as stale:
        await set_limits(ledger, account, "limit-2", limit=60)
    assert stale.value.remote_reason == "VERSION_CONFLICT"
    [spent, too_much] = await ledger.post(ledger.move(1, "A", "M", 50), ledger.move(2, "A", "M", 1))
    assert (spent.reason, too_much.reason) == ("", "INSUFFICIENT_FUNDS")
    frozen = await set_limits(ledger, (await ledger.accounts())["M"], "limit-3", court=20)
    assert frozen.court_frozen_minor == 20
    assert frozen.balance.available_minor == 30


async def test_buffering_an_account_shows_settled_and_buffered_parts(ledger: LedgerRpc) -> None:
    account = (await ledger.accounts())["M"]
    buffered = await set_buffering(ledger, account, "buffer-1", is_buffered=True)
    assert buffered.is_buffered
    with pytest.raises(RemoteError) as refused:
        await set_buffering(ledger, (await ledger.accounts())["R"], "b", is_buffered=True)
    assert refused.value.remote_reason == "FIELD_INVALID"
    result = await ledger.post_one(ledger.move(1, "R", "M", 50))
    assert (result.is_buffered, result.booked_minor) == (True, 50)
    shown = (await ledger.accounts())["M"].balance
    assert shown.buffered_minor + shown.available_minor == 50
    while True:  # the drain may be faster, and changes the version
        try:
            plain = await set_buffering(
                ledger, (await ledger.accounts())["M"], "buffer-2", is_buffered=False
            )
            break
        except RemoteError as error:
            if error.remote_reason != "VERSION_CONFLICT":
                raise
    assert not plain.is_buffered
    assert (plain.balance.buffered_minor, plain.balance.available_minor) == (0, 50)
    again = await ledger.post_one(ledger.move(2, "R", "M", 5))
    assert not again.is_buffered


async def test_the_drain_of_a_serving_process_posts_what_was_appended(ledger: LedgerRpc) -> None:
    await ledger.open(
        [
            AccountSpec(
                id=ledger.transfer_id("shop").replace("tfr", "acc"),
                owner_id="shop",
                kind="merchant_pending",
                currency_code="USD",
                is_buffered=True,
            )
        ]
    )
    ledger.ids["S"] = ledger.transfer_id("shop").replace("tfr", "acc")
    await ledger.post(*(ledger.move(number, "R", "S", 1) for number in range(20)))
    draining = asyncio.create_task(ledger.kit.background("account drain of buffers").run())
    async with asyncio.timeout(20):
        while (await ledger.accounts())["S"].balance.available_minor < 20:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    draining.cancel()
    assert (await ledger.accounts())["S"].balance.buffered_minor == 0


async def test_a_serving_process_expires_and_drains_in_every_open_book(ledger: LedgerRpc) -> None:
    pool = await ledger.kit.pool("account")
    await open_book(pool, DayStore(pool), 5, date(2026, 1, 1), "test")
    kinds = {"r5": "channel_receivable", "s5": "merchant_pending", "a5": "user_available"}
    ledger.ids |= {name: ledger.kit.ids.new("acc", 5) for name in kinds}
    await ledger.open(
        [
            AccountSpec(
                id=ledger.ids[name],
                owner_id=name,
                kind=kind,
                currency_code="USD",
                is_buffered=name == "s5",
            )
            for name, kind in kinds.items()
        ]
    )
    orders = [
        ledger.move("r5-s5", "r5", "s5", id=ledger.kit.ids.new("tfr", 5)),
        ledger.move(
            "r5-a5",
            "r5",
            "a5",
            id=ledger.kit.ids.new("tfr", 5),
            kind=TRANSFER_KIND_PENDING,
            timeout_seconds=1,
        ),
    ]
    assert {one.status for one in await ledger.post(*orders)} == {TRANSFER_STATUS_BOOKED}
    names = ("account drain of buffers", "account expiry of holds")
    tasks = [asyncio.create_task(ledger.kit.background(name).run()) for name in names]
    async with asyncio.timeout(30):
        while True:
            accounts = await ledger.accounts()
            if accounts["s5"].balance.available_minor and not (
                accounts["a5"].balance.credits_pending_minor
            ):
                break
            await asyncio.sleep(0.05)
    for task in tasks:
        task.cancel()
    assert accounts["s5"].balance.buffered_minor == 0


async def test_changing_an_account_is_for_the_platforms_people(ledger: LedgerRpc) -> None:
    account = (await ledger.accounts())["A"]
    request = SetAccountStatusRequest(
        request_id="freeze-1",
        account_id=account.id,
        status=ACCOUNT_STATUS_DEBIT_FROZEN,
        expected_version=account.version,
        reason="stolen phone",
    )
    with pytest.raises(RemoteError) as refused:
        await calling(operator_call("operator"), lambda: ledger.payment.SetAccountStatus(request))
    assert refused.value.remote_reason == "PERMISSION_DENIED"
    answer = await calling(
        operator_call("operator"), lambda: ledger.operator.SetAccountStatus(request)
    )
    assert answer.account.status == ACCOUNT_STATUS_DEBIT_FROZEN
