"""An answer about an instant stands: whoever asks again, while others write, is told the same."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime

from hosted_services import calling
from paymesh.account.v1 import AccountSpec, GetBalanceAtRequest, TransferResult

from tests.integration.account.ledger_rpc import LedgerRpc, service_call, serving_ledger
from tests.integration.account.test_reading_calls import entries_of, instant, statement

WRITERS = 4
CALLS = 40


async def test_balances_read_while_others_write_stay_true(database_url: str) -> None:
    async with serving_ledger(database_url) as rpc:
        await rpc.open_cast()
        buffered = rpc.kit.ids.new("acc")
        spec = AccountSpec(
            id=buffered,
            owner_id="B",
            kind="merchant_pending",
            currency_code="USD",
            is_buffered=True,
        )
        await rpc.open([spec])
        rpc.ids["B"] = buffered
        drain = asyncio.create_task(rpc.kit.background("account drain of buffers").run())
        moved: list[tuple[TransferResult, int]] = []
        told: list[tuple[datetime, int]] = []
        writing = [asyncio.create_task(_write(rpc, number, moved)) for number in range(WRITERS)]
        while not all(task.done() for task in writing):
            at = await rpc.kit.pools["account"].fetch_now()
            told.append((at, await _balance(rpc, at)))
        await asyncio.gather(*writing)
        drain.cancel()
        assert len(told) > 5
        for at, balance in told:
            until = [
                signed
                for result, signed in moved
                if result.booked_minor and result.booked_at.ToDatetime(UTC) <= at
            ]
            assert balance == sum(until), at
            assert balance == await _balance(rpc, at)
        booked = [signed for result, signed in moved if result.booked_minor]
        assert (await statement(rpc, "B")).closing_balance_minor == sum(booked)
        assert len(await entries_of(rpc, buffered, 1000)) == len(booked)


async def _write(rpc: LedgerRpc, writer: int, moved: list[tuple[TransferResult, int]]) -> None:
    chance = random.Random(writer)  # noqa: S311 - repeatable, not secret
    for number in range(CALLS):
        specs, signs = [], []
        for part in range(chance.randint(1, 3)):
            is_credit = chance.random() < 0.7
            parties = ("R", "B") if is_credit else ("B", "M")
            amount = chance.randint(1, 50)
            specs.append(rpc.move(f"{writer}.{number}.{part}", *parties, amount))
            signs.append(amount if is_credit else -amount)
        moved += list(zip(await rpc.post(*specs), signs, strict=True))


async def _balance(rpc: LedgerRpc, at: datetime) -> int:
    request = GetBalanceAtRequest(account_id=rpc.ids["B"], at=instant(at))
    answer = await calling(service_call(), lambda: rpc.payment.GetBalanceAt(request))
    return int(answer.balance_minor)
