"""`python -m tests.simulation --seeds A..B [--stores model|postgres] [--trace]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from functools import partial

from tests.simulation.postgres import PostgresServer, PostgresStores, new_database
from tests.simulation.run import fix_hashing, run_seed, run_seeds, show_progress
from tests.simulation.world import Outcome


def main() -> int:
    """Run what the command line asks for; 1 when a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="1..200", help="A..B, both included, or one seed")
    parser.add_argument("--stores", choices=("model", "postgres"), default="model")
    parser.add_argument("--trace", action="store_true", help="tell what happens in each seed")
    asked = parser.parse_args()
    fix_hashing()
    first, _, last = asked.seeds.partition("..")
    seeds = range(int(first), int(last or first) + 1)
    if asked.stores == "postgres":
        outcomes = _on_postgres(seeds, traced=asked.trace)
    elif asked.trace or len(seeds) == 1:
        outcomes = (run_seed(seed, traced=asked.trace) for seed in seeds)
    else:
        outcomes = run_seeds(seeds)
    if asked.trace:
        outcomes = map(_tell, outcomes)
    return 1 if show_progress(outcomes, len(seeds), asked.stores, _say) else 0


def _on_postgres(seeds: range, *, traced: bool) -> Iterator[Outcome]:
    """Run seeds on the server that `PAYMESH_POSTGRES_URL` names, in a database of their own."""
    url = os.environ.get("PAYMESH_POSTGRES_URL", "")
    if not url:
        sys.exit("--stores postgres needs PAYMESH_POSTGRES_URL, a role that may make databases")
    with asyncio.Runner() as runner, new_database(runner, url) as database_url:
        server = PostgresServer(database_url)
        try:
            for seed in seeds:
                yield run_seed(seed, partial(PostgresStores, server), traced=traced)
        finally:
            server.close()


def _tell(outcome: Outcome) -> Outcome:
    for note in outcome.notes:
        _say(note)
    _say(
        f"seed {outcome.seed}: digest {outcome.digest}, {outcome.steps} steps, {outcome.kills}"
        f" kills, {outcome.hours:.1f} virtual hours, faults {outcome.faults}"
    )
    return outcome


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
