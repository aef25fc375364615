"""What a transfer costs in an old ledger against a young one.

`ledger_growth_ratio` is the CPU time of a transfer, of the account process and its PostgreSQL
backends, in a ledger of 5 million entries over that in one of 100,000, both alive on one server, in
windows that alternate; calls of 1,000 transfers, four in flight, in which the database's share is
largest. What is done beside the calls counts: a window ends when its vouchers are made.

The old ledger is made in SQL, as the ledger itself would have written it (`ledger_growth.sql`):
rounds in which every account is debited once and credited once by one minor unit, so that version
and running sums of every line follow from its number alone: place = number % accounts is debited,
and the account 1 + round places further on is credited. All of it lies in the current month, the
one that is written to; vouchers of it are as good as archived. In the end the ledger checks its
books, old and young.

    python -m tests.bench.ledger_growth [--windows 5]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import asyncpg
import uvloop

from common.db.queries import Queries, load_queries
from common.embedded.cluster import Servers
from services.account.store.partitions import bounds_of
from tests.bench.ledger_process import (
    ACCOUNTS,
    BATCH_TRANSFERS,
    FUNDS_MINOR,
    LedgerProcess,
    say,
)

WINDOWS: Final = 5
BATCHES: Final = 8
"""Batch calls of one window: about a second of CPU."""

ENTRIES: Final = {"young": 60_000, "old": 5_000_000}
"""Entries to begin with; the windows take the young ledger over 100,000."""

_VERSION_BEFORE: Final = 2
"""Of an account that was opened and given its money."""
# The time inside an id, in base 32, ten letters (common.ids).
_TIME_LETTERS: Final = " || ".join(
    f"substr('0123456789abcdefghjkmnpqrstvwxyz', ((at_ms >> {shift}) & 31)::integer + 1, 1)"
    for shift in range(45, -1, -5)
)
_QUERIES: Final = load_queries(Path(__file__).with_suffix(".sql"))


async def measure(servers: Servers, windows: int = WINDOWS, scale: float = 1) -> dict[str, float]:
    """Return the ratio and the two costs; `scale` makes the old ledger smaller."""
    async with AsyncExitStack() as stack:
        ledgers: dict[str, LedgerProcess] = {}
        for name, entries in ENTRIES.items():
            ledgers[name] = ledger = await stack.enter_async_context(LedgerProcess(servers, name))
            await ledger.open_accounts()
            begun_at = time.perf_counter()
            await age(ledger, max(1, round(entries * scale) // (2 * ACCOUNTS) - 1))
            say(f"a ledger of {entries:,} entries, in {time.perf_counter() - begun_at:.0f} s")
        costs: dict[str, list[float]] = {name: [] for name in ledgers}
        for ledger in ledgers.values():  # plans, caches and connections are warm in service
            await _window(ledger)
        for window in range(windows):
            for name, ledger in ledgers.items():
                costs[name].append(await _window(ledger))
            say(f"round {window + 1}: {', '.join(f'{c[-1]:.0f} µs' for c in costs.values())}")
        for name, ledger in ledgers.items():
            say(f"checking the books of the {name} ledger")
            say(f"{await ledger.check_books():,} entries agree")
    pairs = zip(costs["old"], costs["young"], strict=True)
    return {
        "ledger_transfer_young_cpu_us": round(statistics.median(costs["young"]), 1),
        "ledger_transfer_old_cpu_us": round(statistics.median(costs["old"]), 1),
        "ledger_growth_ratio": round(statistics.median(old / young for old, young in pairs), 2),
    }


async def _window(ledger: LedgerProcess) -> float:
    """Return the CPU time of one transfer, in microseconds."""
    requests = ledger.batches(BATCHES)
    before = await ledger.spent()
    await ledger.run_batches(requests)
    await ledger.settle()
    after = await ledger.spent()
    used = after.process - before.process + after.database - before.database
    return used / (BATCHES * BATCH_TRANSFERS) * 1e6


async def age(ledger: LedgerProcess, rounds: int) -> None:
    """Give a ledger, just opened, `rounds` times as many transfers as it has accounts."""
    await ledger.settle()
    await ledger.stop()
    now = datetime.now(UTC)
    low, high = bounds_of((now.year, now.month))
    month_begin = datetime(now.year, now.month, 1, tzinfo=UTC)
    statements = _fill(
        {
            "month": f"{now.year:04d}_{now.month:02d}",
            "low": low,
            "high": high,
            "accounts": ACCOUNTS,
            "rounds": rounds,
            "first_ms": int(month_begin.timestamp() * 1000),
            "last_ms": int(now.timestamp() * 1000) - 1000,
            "version_before": _VERSION_BEFORE,
            "funds_minor": FUNDS_MINOR,
            "time_letters": _TIME_LETTERS,
        }
    )
    first, second = await _connect(ledger.url), await _connect(ledger.url)
    try:
        await first.execute("CREATE UNLOGGED TABLE bench_accounts (place integer, id text)")
        await first.copy_records_to_table(
            "bench_accounts", records=enumerate(ledger.accounts), columns=["place", "id"]
        )
        for name in ("stage", "detach"):
            await first.execute(statements[name])
        await asyncio.gather(
            _run(first, statements, "transfers", "accounts"),
            _run(second, statements, "entries"),
        )
        await first.execute(statements["attach_transfers"])
        await second.execute(statements["attach_entries"])
        await _run(first, statements, "inner_books", "tidy")
        await first.execute("VACUUM ANALYZE")
        await first.execute("CHECKPOINT")
    finally:
        await first.close()
        await second.close()
    await ledger.start()


def _fill(values: dict[str, Any]) -> dict[str, str]:
    queries: Queries = _QUERIES
    return {name: text.format(**values) for name, text in queries.items()}


async def _connect(url: str) -> Any:
    return await asyncpg.connect(
        url,
        server_settings={
            "search_path": "account",
            "maintenance_work_mem": "512MB",
            "work_mem": "256MB",
        },
    )


async def _run(connection: Any, statements: dict[str, str], *names: str) -> None:
    for name in names:
        await connection.execute(statements[name])


async def _main(windows: int, scale: float) -> None:
    async with Servers("bench", fresh=True, side_by_side=True) as servers:
        figures = await measure(servers, windows, scale)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    uvloop.run(_main(arguments.windows, arguments.scale))
