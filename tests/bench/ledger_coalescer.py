"""What the coalescer gains: transfers a second inside one process, without any call.

Two ways, on the same server and tables of the same columns, in interleaved windows:

- `ledger_coalesced_per_s`: 256 callers, 10,000 accounts;
- `ledger_transaction_each_per_s`: a transaction for each transfer (insert transfer, lock both
  accounts in id order, two updates, two entries), 16 connections, prepared statements, no plpgsql.

The coalesced way does more for each transfer than the baseline: exact answers to repeats, decisions
on limits, holds and status, 20 % pending and post. The baseline checks funds and writes the same
rows.

    python -m tests.bench.ledger_coalescer [--seconds 2] [--windows 5]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import uvloop

import services.account
from common.clock import SystemClock
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.embedded.cluster import Servers
from common.ids import IdFactory
from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind, TransferStatus
from services.account.flows.cut_day import open_book
from services.account.flows.open_accounts import open_accounts
from services.account.flows.post_transfers import Ledger
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore

ACCOUNTS = 10_000
CALLERS = 256
BASELINE_CONNECTIONS = 16
_START_MINOR = 10**9
_HERE = Path(__file__).parent


@dataclass
class Bench:
    """What all ways share."""

    pool: Pool
    baseline: Any
    accounts: list[str]
    ids: IdFactory
    random: random.Random


async def measure(
    postgres_url: str, *, seconds: float = 2.0, windows: int = 5
) -> dict[str, float | int]:
    """Measure all ways in interleaved windows; return the medians and ratios."""
    name = f"bench_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    url = urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))
    try:
        return await _measure(url, seconds, windows)
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


async def _measure(url: str, seconds: float, windows: int) -> dict[str, float | int]:
    bench = await _prepare(url)
    ledger = Ledger(bench.pool, SystemClock())
    await ledger.prepare()
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "ledger_coalesced_per_s": lambda: _coalesced(bench, ledger, seconds),
        "ledger_transaction_each_per_s": lambda: _each(bench, seconds, _transaction),
    }
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for way in ways.values():  # plans, caches, first partitions
        await way()
    for _ in range(windows):
        for name, run in ways.items():
            rates[name].append(await run())
    await ledger.drain()
    async with bench.pool.acquire() as connection:
        await connection.execute("SELECT 1")
    await bench.pool.close()
    await bench.baseline.close()
    figures: dict[str, float | int] = {
        name: round(statistics.median(values)) for name, values in rates.items()
    }
    figures["ledger_coalesced_over_transaction_each"] = round(
        figures["ledger_coalesced_per_s"] / figures["ledger_transaction_each_per_s"], 2
    )
    return figures


async def _prepare(url: str) -> Bench:
    own_url = await prepare_schema(url, "account")
    migrations = Path(services.account.__file__).parent / "migrations"
    await migrate(own_url, "account", {"account": migrations})
    pool = await open_pool(own_url, SessionSettings("account"), connections_max=4)
    await open_book(pool, DayStore(pool), 0, date(2026, 1, 1), "bench")
    baseline = await asyncpg.create_pool(
        own_url,
        min_size=BASELINE_CONNECTIONS,
        max_size=BASELINE_CONNECTIONS,
        server_settings={"search_path": "account", "jit": "off"},
    )
    async with baseline.acquire() as connection:
        await connection.execute((_HERE / "ledger_coalescer.sql").read_text(encoding="utf-8"))
    ids = IdFactory(SystemClock())
    specs = [
        AccountSpec(ids.new("acc"), f"owner-{place}", "user_available", "USD")
        for place in range(ACCOUNTS)
    ]
    hot = AccountSpec(ids.new("acc"), "shop", "merchant_pending", "USD")
    await open_accounts(pool, AccountStore(pool, read_chart().kinds), [*specs, hot])
    async with pool.acquire() as connection:
        # Money to begin with, without a million transfers: limits are on.
        await connection.execute("UPDATE accounts SET credits_posted_minor = $1", _START_MINOR)
    async with baseline.acquire() as connection:
        await connection.execute("INSERT INTO plain_accounts SELECT * FROM accounts")
        await connection.execute("ANALYZE")
    accounts = [spec.id for spec in specs]
    return Bench(pool, baseline, accounts, ids, random.Random(1))  # noqa: S311


async def _coalesced(bench: Bench, ledger: Ledger, seconds: float) -> float:
    booked = 0
    end = time.perf_counter() + seconds
    counter = itertools.count()

    async def caller() -> None:
        nonlocal booked
        held = ""
        while time.perf_counter() < end:
            transfer = _next_transfer(bench, held, next(counter))
            [result] = await ledger.post([transfer])
            if result.status != TransferStatus.BOOKED:
                raise RuntimeError(f"not booked: {result}")
            held = transfer.id if transfer.kind == TransferKind.PENDING else ""
            booked += 1

    begun = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return booked / (time.perf_counter() - begun)


def _next_transfer(bench: Bench, held: str, number: int) -> Transfer:
    """One in ten is a hold and the next of its caller posts it: 20 % pending and post."""
    transfer_id = bench.ids.new("tfr")
    if held:
        return Transfer(
            transfer_id,
            TransferKind.POST,
            pending_id=held,
            movement="bench.post",
            reference_id=held,
        )
    debit, credit = _pair(bench)
    return Transfer(
        transfer_id,
        TransferKind.PENDING if number % 9 == 0 else TransferKind.SINGLE,
        debit,
        credit,
        "USD",
        1,
        movement="bench.move",
        reference_id=transfer_id,
        biz_trace_id=transfer_id,
    )


def _pair(bench: Bench) -> tuple[str, str]:
    debit = bench.accounts[int(bench.random.random() * ACCOUNTS)]
    credit = bench.accounts[int(bench.random.random() * ACCOUNTS)]
    return (debit, credit) if debit != credit else _pair(bench)


async def _each(
    bench: Bench, seconds: float, post: Callable[[Any, str, str, str], Awaitable[None]]
) -> float:
    booked = 0
    end = time.perf_counter() + seconds

    async def worker() -> None:
        nonlocal booked
        async with bench.baseline.acquire() as connection:
            while time.perf_counter() < end:
                await post(connection, bench.ids.new("tfr"), *_pair(bench))
                booked += 1

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(BASELINE_CONNECTIONS)))
    return booked / (time.perf_counter() - begun)


_INSERT_TRANSFER = """
    INSERT INTO plain_transfers (
        book, amount_minor, booked_minor, debit_version, credit_version, booked_at,
        timeout_seconds, business_date, keep_rest, linked, forced, id, kind, status,
        debit_account_id, credit_account_id, currency_code, pending_id, movement, reference_id,
        biz_trace_id, tenant_id, mode, merchant_id, actor
    )
    VALUES (0, 1, 1, 0, 0, now(), 0, '2026-01-01', false, false, false, $1, 'SINGLE', 'BOOKED',
            $2, $3, 'USD', '', 'bench.move', $1, $1, 'default', 'LIVE', '', '')
"""
_LOCK = """
    SELECT id, credits_posted_minor - debits_posted_minor - debits_pending_minor AS available
    FROM plain_accounts WHERE book = 0 AND id = ANY($1::text[]) ORDER BY id FOR UPDATE
"""
_DEBIT = """
    UPDATE plain_accounts
    SET debits_posted_minor = debits_posted_minor + 1, version = version + 1, updated_at = now()
    WHERE book = 0 AND id = $1 RETURNING version, debits_posted_minor, credits_posted_minor
"""
_CREDIT = """
    UPDATE plain_accounts
    SET credits_posted_minor = credits_posted_minor + 1, version = version + 1, updated_at = now()
    WHERE book = 0 AND id = $1 RETURNING version, debits_posted_minor, credits_posted_minor
"""
_ENTRY = """
    INSERT INTO plain_entries (
        book, is_debit, business_date, version, amount_minor, debits_posted_minor,
        credits_posted_minor, booked_at, account_id, transfer_id
    )
    VALUES (0, $1, '2026-01-01', $2, 1, $3, $4, now(), $5, $6)
"""


async def _transaction(connection: Any, transfer_id: str, debit: str, credit: str) -> None:
    async with connection.transaction():
        await connection.execute(_INSERT_TRANSFER, transfer_id, debit, credit)
        rows = await connection.fetch(_LOCK, [debit, credit])
        if any(row["id"] == debit and row["available"] < 1 for row in rows):
            raise RuntimeError("not booked")
        debited = await connection.fetchrow(_DEBIT, debit)
        credited = await connection.fetchrow(_CREDIT, credit)
        await connection.execute(_ENTRY, True, *debited, debit, transfer_id)
        await connection.execute(_ENTRY, False, *credited, credit, transfer_id)


async def _main(seconds: float, windows: int) -> None:
    async with Servers("bench", fresh=True, side_by_side=True, only=["postgres"]) as servers:
        figures = await measure(servers.postgres_url, seconds=seconds, windows=windows)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--windows", type=int, default=5)
    arguments = parser.parse_args()
    uvloop.run(_main(arguments.seconds, arguments.windows))
