"""How many transfers a second the ledger books over the mesh, against PostgreSQL's own benchmark.

In interleaved windows, on one PostgreSQL server:

- `ledger_stream_single_per_s`: calls of one transfer over a stream to an account process, 256 in
  flight, 10,000 accounts;
- `ledger_batch_1000_per_s`: calls of 1,000 transfers, four in flight;
- `ledger_hot_per_s`: calls of one transfer, 256 in flight, all credits to one account;
- `pgbench_tpcb_per_s`: pgbench's TPC-B.

The ratios are medians of the windows of one round each, so that a machine whose speed drifts treats
both sides alike. After each window the vouchers that it left are waited for, so that none is made
in the windows of another: while transfers are booked, their maker rests for the most part.
`ledger_vouchers_per_s` is how fast it is when nobody is in its way. At the end the ledger checks
its books.

    python -m tests.bench.ledger [--windows 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import uvloop

from common.embedded.cluster import Servers
from tests.bench.ledger_process import LedgerProcess, say
from tests.bench.pgbench import Pgbench

WINDOWS: Final = 5
SINGLES: Final = 10_000
"""Single calls of one window: two or three seconds of work."""
BATCHES: Final = 24
"""Batch calls of one window."""
PGBENCH_SECONDS: Final = 3

_RATIOS: Final = {
    "ledger_single_over_tpcb": ("ledger_stream_single_per_s", "pgbench_tpcb_per_s"),
    "ledger_batch_over_tpcb": ("ledger_batch_1000_per_s", "pgbench_tpcb_per_s"),
    "ledger_hot_over_single": ("ledger_hot_per_s", "ledger_stream_single_per_s"),
}


async def measure(servers: Servers, windows: int = WINDOWS, scale: float = 1) -> dict[str, float]:
    """Return the rates and ratios; `scale` makes windows shorter."""
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(LedgerProcess(servers, "ledger"))
        say("opening accounts")
        await ledger.open_accounts()
        say("filling pgbench's tables")
        tpcb = await stack.enter_async_context(Pgbench(servers.postgres_url))
        seconds = max(1, round(PGBENCH_SECONDS * scale))
        await tpcb.try_clients(seconds)
        singles, batches = round(SINGLES * scale), max(4, round(BATCHES * scale))
        ways: dict[str, Callable[[], Awaitable[float]]] = {
            "ledger_stream_single_per_s": lambda: ledger.run_singles(ledger.singles(singles)),
            "ledger_batch_1000_per_s": lambda: ledger.run_batches(ledger.batches(batches)),
            "ledger_hot_per_s": lambda: ledger.run_singles(ledger.singles(singles, hot=True)),
            "pgbench_tpcb_per_s": lambda: tpcb.run(seconds),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        vouchers: list[float] = []
        for name, run in ways.items():  # plans, caches and connections are warm in service
            if name != "pgbench_tpcb_per_s":
                await run()
        await ledger.settle()
        for window in range(windows):
            for name, run in ways.items():
                rates[name].append(await run())
                vouchers.append(await ledger.settle())
            say(f"round {window + 1}: {', '.join(f'{r[-1]:,.0f}' for r in rates.values())}")
        await ledger.check_books()
    figures: dict[str, float] = {
        name: round(statistics.median(each)) for name, each in rates.items()
    }
    for ratio, (above, below) in _RATIOS.items():
        pairs = zip(rates[above], rates[below], strict=True)
        figures[ratio] = round(statistics.median(a / b for a, b in pairs), 2)
    figures["pgbench_clients"] = tpcb.clients
    figures["ledger_vouchers_per_s"] = round(statistics.median(filter(None, vouchers)))
    return figures


async def _main(windows: int) -> None:
    async with Servers("bench", fresh=True, side_by_side=True) as servers:
        figures = await measure(servers, windows)
    sys.stdout.write(f"{json.dumps(figures, indent=2)}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    uvloop.run(_main(parser.parse_args().windows))
