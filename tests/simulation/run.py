"""Runs seeds, on two processes, and says of a failing one how to see it again."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from tests.simulation.shop import open_shop
from tests.simulation.stores import ModelStores, OpenStores
from tests.simulation.world import Outcome, World

REGRESSIONS: Final = Path(__file__).with_name("regressions.txt")
WORKERS: Final = 2
_CHUNK: Final = 20


def run_seed(seed: int, open_stores: OpenStores = ModelStores, *, traced: bool = False) -> Outcome:
    """Live through one seed."""
    with _silence():
        return World(seed, open_stores, traced=traced).run(open_shop)


def run_seeds(seeds: Sequence[int], workers: int = WORKERS) -> Iterator[Outcome]:
    """Live through many seeds on the model, in some processes; outcomes in order of the seeds."""
    chunks = [seeds[start : start + _CHUNK] for start in range(0, len(seeds), _CHUNK)]
    # Started anew, so that no thread of the parent's is in the way.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for outcomes in pool.map(_run_chunk, chunks):
            yield from outcomes


def _run_chunk(seeds: Sequence[int]) -> list[Outcome]:
    return [replace(run_seed(seed), notes=[]) for seed in seeds]


def read_regressions() -> list[int]:
    """Return the seeds that once found something."""
    lines = REGRESSIONS.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line.strip() and not line.startswith("#")]


def how_to_repeat(outcome: Outcome, stores: str = "model") -> str:
    """Return what to type to see a seed again."""
    seeds = f"--seeds {outcome.seed}..{outcome.seed}"
    where = "" if stores == "model" else f" --stores {stores}"
    return f"python -m tests.simulation {seeds}{where} --trace"


def fix_hashing() -> None:
    """Start over with fixed hashes: the order of a set of texts is part of what a seed decides."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606


def show_progress(
    outcomes: Iterable[Outcome], total: int, stores: str, say: Callable[[str], None]
) -> list[Outcome]:
    """Say how far it is, and of each failure how to repeat it; return the failures."""
    begun_at = time.monotonic()
    failed: list[Outcome] = []
    done = steps = kills = 0
    hours = 0.0
    for outcome in outcomes:
        done, steps, kills = done + 1, steps + outcome.steps, kills + outcome.kills
        hours += outcome.hours
        if outcome.violation:
            failed.append(outcome)
            say(f"seed {outcome.seed} FAILED: {outcome.violation}")
            say(f"  again: {how_to_repeat(outcome, stores)}")
        if done % 100 == 0 or done == total:
            seconds = time.monotonic() - begun_at
            say(
                f"{done} of {total} seeds in {seconds:.0f} s: {steps:,} steps, {kills:,} kills,"
                f" {hours:,.0f} virtual hours, {len(failed)} failed"
            )
    return failed


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the services' logs to themselves: in a storm they are endless."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    kept = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**kept)
        logging.disable(before)
