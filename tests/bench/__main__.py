"""`python -m tests.bench`: all benchmarks in one run, judged against what is wanted.

Figures are medians of interleaved windows; what counts are the ratios, because they hold on any
machine. Written are `build/bench.json` and the table `docs/benchmarks.md` (not with `--quick`,
whose windows are too few and too short to be published). `--only` runs some; a table is written
only by a run of all.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from common.embedded.cluster import Servers
from tests.bench import hops, ledger, ledger_coalescer, ledger_growth, payments
from tests.forks import expect_programs_only

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT_FILE: Final = ROOT / "build" / "bench.json"
TABLE_FILE: Final = ROOT / "docs" / "benchmarks.md"

Figures = Mapping[str, float | int]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    meaning: str
    unit: str
    wanted_min: float | None = None
    """The least that is wanted; None where the figure only describes the machine."""
    wanted_max: float | None = None
    """The most that is wanted."""

    @property
    def wanted(self) -> str:
        """What is wanted, as the table says it."""
        if self.wanted_min is not None:
            return f"≥ {self.wanted_min:g}"
        return "" if self.wanted_max is None else f"≤ {self.wanted_max:g}"

    def says(self, value: float) -> str:
        """Return whether the wanted value is reached, as a word of the table."""
        if not self.wanted:
            return ""
        is_low = self.wanted_min is not None and value < self.wanted_min
        is_high = self.wanted_max is not None and value > self.wanted_max
        return "**no**" if is_low or is_high else "yes"


_HOP: Final = "µs of CPU, both sides"
_CPU: Final = "µs of CPU, process and database"
_RATE: Final = "per second"
_RATIO: Final = "ratio"

ROWS: Final = (
    Row("hop_local_bare_cpu_us", "call inside one process, no middleware", _HOP),
    Row("hop_stream_bare_cpu_us", "call over a stream, no middleware", _HOP),
    Row("hop_unary_bare_cpu_us", "plain gRPC call, none of our code", _HOP),
    Row("hop_unary_to_stream_bare", "unary / stream, bare", _RATIO, 12),
    Row("hop_local_full_cpu_us", "call inside one process, production chain", _HOP),
    Row("hop_stream_full_cpu_us", "call over a stream, production chain", _HOP),
    Row("hop_unary_full_cpu_us", "plain gRPC call, production chain", _HOP),
    Row("hop_unary_to_stream_full", "unary / stream, production chain", _RATIO, 7),
    Row("ledger_stream_single_per_s", "calls of one transfer over a stream, 256 in flight", _RATE),
    Row("ledger_batch_1000_per_s", "transfers in calls of 1,000, four in flight", _RATE),
    Row("ledger_hot_per_s", "calls of one transfer, all credits to one account", _RATE),
    Row("pgbench_tpcb_per_s", "baseline: pgbench's TPC-B, prepared, its best clients", _RATE),
    Row("pgbench_clients", "clients of pgbench that were fastest, of 8 to 64", "clients"),
    Row("ledger_single_over_tpcb", "single calls / TPC-B", _RATIO, 1.2),
    Row("ledger_batch_over_tpcb", "calls of 1,000 / TPC-B", _RATIO, 3),
    Row("ledger_hot_over_single", "hot / uniform, single calls", _RATIO, 0.9),
    Row("ledger_vouchers_per_s", "vouchers made when nothing is being booked", _RATE),
    Row("ledger_transfer_young_cpu_us", "a transfer, 100,000 entries in the books", _CPU),
    Row("ledger_transfer_old_cpu_us", "a transfer, 5 million entries in the books", _CPU),
    Row("ledger_growth_ratio", "CPU of a transfer, old / young ledger", _RATIO, wanted_max=1.35),
    Row("ledger_coalesced_per_s", "in the process, without calls: 256 callers", _RATE),
    Row("ledger_transaction_each_per_s", "baseline: a transaction each, 16 connections", _RATE),
    Row("ledger_coalesced_over_transaction_each", "coalesced / transaction each", _RATIO, 3),
    Row("payments_per_s_processes", "order and payment over REST, a process each", _RATE),
    Row("payments_per_s_two_workers", "the same, all services in two processes", _RATE),
)


async def _measure_hops(quick: bool) -> Figures:
    return await hops.measure(windows=2 if quick else 7)


async def _measure_coalescer(quick: bool) -> Figures:
    async with Servers("bench", fresh=True, side_by_side=True, only=["postgres"]) as servers:
        return await ledger_coalescer.measure(
            servers.postgres_url, seconds=0.5 if quick else 2.0, windows=2 if quick else 3
        )


async def _measure_ledger(quick: bool) -> Figures:
    async with Servers("bench", fresh=True, side_by_side=True) as servers:
        if quick:
            return await ledger.measure(servers, windows=1, scale=0.2)
        return await ledger.measure(servers)


async def _measure_growth(quick: bool) -> Figures:
    async with Servers("bench", fresh=True, side_by_side=True) as servers:
        if quick:
            return await ledger_growth.measure(servers, windows=1, scale=0.02)
        return await ledger_growth.measure(servers)


async def _measure_payments(quick: bool) -> Figures:
    if quick:
        return await payments.measure(windows=1, payments=100)
    return await payments.measure()


BENCHES: Final[Mapping[str, Callable[[bool], Awaitable[Figures]]]] = {
    "hops": _measure_hops,
    "ledger": _measure_ledger,
    "growth": _measure_growth,
    "coalescer": _measure_coalescer,
    "payments": _measure_payments,
}


async def _measure(names: list[str], quick: bool) -> dict[str, float | int]:
    figures: dict[str, float | int] = {}
    for name in names:
        sys.stdout.write(f"measuring {name} …\n")
        sys.stdout.flush()
        begun_at = time.perf_counter()
        figures.update(await BENCHES[name](quick))
        sys.stdout.write(f"measured {name} in {time.perf_counter() - begun_at:.0f} s\n")
    return figures


def table_of(figures: Figures) -> str:
    """Return the figures as a table in Markdown; those that are missing are left out."""
    lines = ["| figure | what | value | unit | wanted | reached |", "| --- " * 6 + "|"]
    for row in ROWS:
        if row.name in figures:
            value = figures[row.name]
            says = row.says(value)
            cells = (f"`{row.name}`", row.meaning, f"{value:,}", row.unit, row.wanted, says)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_NOTES: Final = """
## How to read the ledger's rows

- The ledger is one process (`paymesh serve account`) behind one stream, with everything that runs
  beside its calls in production. Its caller is a second process with the generated stub and the
  whole chain of middleware; requests are made beforehand, with amounts that differ. Both share the
  cores with PostgreSQL, as pgbench does with its server.
- pgbench's TPC-B is given its best: prepared statements, a branch for each client, as many clients
  as were fastest in a trial. Its transaction updates three rows, inserts one and decides nothing. A
  transfer of the ledger inserts three rows under five indexes, updates two, and is checked against
  limits, status and repeats.
- Rates are of bookings. Vouchers are made behind them, at a fifth of a processor while transfers
  are being booked; what a window left over is made before the next one begins, in nobody's window.
  So the rates stand for a burst of seconds; a load that never pauses also has to pay for its
  vouchers, whose rate stands below.
- `ledger_growth_ratio` counts the vouchers too: a window ends when they are made. The entries of
  the old ledger were written by SQL into the current month, and pass the ledger's own check of its
  books at the end; their vouchers count as archived.
- One lane a book books one batch after the other, so `ledger_batch_1000_per_s` is what one process
  and one PostgreSQL session do in turn, on two cores.
"""


def missed_of(figures: Figures) -> list[str]:
    """Return the figures that are not what is wanted."""
    return [row.name for row in ROWS if row.name in figures and "no" in row.says(figures[row.name])]


def page_of(figures: Figures, measured_on: str) -> str:
    """Return docs/benchmarks.md."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    missed = ", ".join(f"`{name}`" for name in missed_of(figures))
    said = f"Not reached: {missed}." if missed else "All that is wanted was reached in this run."
    return (
        "# Benchmarks\n\n"
        f"Written by `make bench` on {measured_on}; {machine}; client, services and servers share\n"
        "the machine. Medians of interleaved windows of one run: the ratios count, the rest\n"
        "describes the machine.\n\n"
        f"{table_of(figures)}\n"
        f"{said}\n"
        f"{_NOTES}"
    )


def main() -> None:
    """Measure, write, print; fails when a wanted ratio is not reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short windows: does it run?")
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", default=None)
    chosen = parser.parse_args()
    expect_programs_only()
    figures = uvloop.run(_measure(chosen.only or list(BENCHES), chosen.quick))
    measured_on = datetime.now(UTC).date().isoformat()
    REPORT_FILE.parent.mkdir(exist_ok=True)
    report = {"measured_on": measured_on, "quick": chosen.quick, **figures}
    REPORT_FILE.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table_of(figures))
    if chosen.quick or chosen.only:
        return
    TABLE_FILE.write_text(page_of(figures, measured_on), encoding="utf-8")
    missed = missed_of(figures)
    if missed:
        sys.exit(f"not reached: {', '.join(missed)}")


if __name__ == "__main__":
    main()
