"""`paymesh chaos`: the demo under fire, over several seeds, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic

from rich.console import Console
from rich.table import Table

from services.cli.demo.run import REPORT_FILE, Wishes, run_demo

_log = logging.getLogger(__name__)


class SeedsError(ValueError):
    """Seeds are numbers and ranges, as in 1-5 or 3,7,20-22."""


def read_seeds(text: str) -> list[int]:
    """Return the seeds that a text names, each once, in its order. Raises SeedsError."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise SeedsError(f"{text!r}: {SeedsError.__doc__}")
        found = range(int(first), int(last or first) + 1)
        if not found:
            raise SeedsError(f"{text!r}: {SeedsError.__doc__}")
        seeds.update(dict.fromkeys(found))
    return list(seeds)


async def run_chaos(seeds: Sequence[int], wishes: Wishes, console: Console) -> int:
    """Run the demo under each seed; return 1 when one of them did not end well.

    Each report is kept as `build/chaos-report-SEED.json`.
    """
    table = Table("seed", "seconds", "ended", title="Chaos", title_justify="left", box=None)
    failed = []
    for seed in seeds:
        begun_at = monotonic()
        file = REPORT_FILE.with_name(f"chaos-report-{seed}.json")
        wished = replace(wishes, seed=seed, report_file=file)
        console.rule(f"seed {seed}")
        try:
            status = await run_demo(wished, console)
        except Exception:  # noqa: BLE001 - logged; the other seeds still have something to say
            _log.exception("seed %s", seed)
            status = 1
        if status:
            failed.append(wished.command)
        ended = "FAILED" if status else "well"
        table.add_row(str(seed), f"{monotonic() - begun_at:.0f}", ended)
    console.print(table)
    for command in failed:
        console.print(f"again with: {command}", highlight=False)
    return 1 if failed else 0
