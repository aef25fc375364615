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
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import uvloop

from common.embedded.cluster import Servers
from tests.bench import hops, ledger, payments

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

    def says(self, value: float) -> str:
        """Return whether the wanted value is reached, as a word of the table."""
        if self.wanted_min is None:
            return ""
        return "yes" if value >= self.wanted_min else "**no**"


_HOP: Final = "µs of CPU, both sides"
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
    Row("ledger_coalesced_uniform_per_s", "transfers, 256 callers, 10,000 accounts", _RATE),
    Row("ledger_coalesced_hot_per_s", "the same, all credits to one account", _RATE),
    Row("ledger_transaction_each_per_s", "baseline: a transaction each, 16 connections", _RATE),
    Row("ledger_function_each_per_s", "baseline: one plpgsql call each", _RATE),
    Row("ledger_coalesced_over_transaction_each", "coalesced / transaction each", _RATIO, 3),
    Row("ledger_hot_over_uniform", "hot / uniform", _RATIO, 0.9),
    Row("payments_per_s_processes", "order and payment over REST, a process each", _RATE),
    Row("payments_per_s_two_workers", "the same, all services in two processes", _RATE),
)


async def _measure_hops(quick: bool) -> Figures:
    return await hops.measure(windows=2 if quick else 7)


async def _measure_ledger(quick: bool) -> Figures:
    async with Servers("bench", fresh=True, side_by_side=True, only=["postgres"]) as servers:
        return await ledger.measure(
            servers.postgres_url, seconds=0.5 if quick else 2.0, windows=2 if quick else 5
        )


async def _measure_payments(quick: bool) -> Figures:
    if quick:
        return await payments.measure(windows=1, payments=100)
    return await payments.measure()


BENCHES: Final[Mapping[str, Callable[[bool], Awaitable[Figures]]]] = {
    "hops": _measure_hops,
    "ledger": _measure_ledger,
    "payments": _measure_payments,
}


async def _measure(names: list[str], quick: bool) -> dict[str, float | int]:
    figures: dict[str, float | int] = {}
    for name in names:
        sys.stdout.write(f"measuring {name} …\n")
        sys.stdout.flush()
        figures.update(await BENCHES[name](quick))
    return figures


def table_of(figures: Figures) -> str:
    """Return the figures as a table in Markdown; those that are missing are left out."""
    lines = ["| figure | what | value | unit | wanted | reached |", "| --- " * 6 + "|"]
    for row in ROWS:
        if row.name in figures:
            value = figures[row.name]
            wanted = "" if row.wanted_min is None else f"≥ {row.wanted_min:g}"
            cells = (f"`{row.name}`", row.meaning, f"{value:,}", row.unit, wanted, row.says(value))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def page_of(figures: Figures, measured_on: str) -> str:
    """Return docs/benchmarks.md."""
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    return (
        "# Benchmarks\n\n"
        f"Written by `make bench` on {measured_on}; {machine}; client, services and servers share\n"
        "the machine. Medians of interleaved windows of one run: the ratios count, the rest\n"
        "describes the machine.\n\n"
        f"{table_of(figures)}"
    )


def main() -> None:
    """Measure, write, print; fails when a wanted ratio is not reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short windows: does it run?")
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHES), metavar="NAME", default=None)
    chosen = parser.parse_args()
    figures = uvloop.run(_measure(chosen.only or list(BENCHES), chosen.quick))
    measured_on = datetime.now(UTC).date().isoformat()
    REPORT_FILE.parent.mkdir(exist_ok=True)
    report = {"measured_on": measured_on, "quick": chosen.quick, **figures}
    REPORT_FILE.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(table_of(figures))
    if chosen.quick or chosen.only:
        return
    TABLE_FILE.write_text(page_of(figures, measured_on), encoding="utf-8")
    missed = [row.name for row in ROWS if "no" in row.says(figures.get(row.name, 0))]
    if missed:
        sys.exit(f"not reached: {', '.join(missed)}")


if __name__ == "__main__":
    main()
