"""PostgreSQL's own benchmark, the baseline of the ledger: TPC-B on the same server and settings.

One of its transactions is what a ledger would do for a transfer without batches: three updates, an
insert and a select by the C client in seven round trips. It is given its best: prepared statements,
a branch for each client, so that they do not wait for each other's row, and as many clients as were
fastest in a trial.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import subprocess
from contextlib import suppress
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

import asyncpg

from common.embedded.postgres import find_binaries

CLIENTS: Final = (8, 16, 32, 64)
"""Numbers of clients that are tried."""

SCALE: Final = 64
"""Branches, one for each client at least: a gigabyte of accounts."""

_THREADS: Final = 2
_TPS: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


class PgbenchError(Exception):
    """pgbench failed; the message is what it said."""


class Pgbench:
    """A database of pgbench's on a server; a context manager."""

    def __init__(self, postgres_url: str) -> None:
        self._url = postgres_url
        self._database = f"bench_tpcb_{secrets.token_hex(4)}"
        self.clients = CLIENTS[0]
        """The number of clients that was fastest."""

    async def __aenter__(self) -> Self:
        await self._administer(f'CREATE DATABASE "{self._database}" TEMPLATE template0')
        await self._run("--initialize", f"--scale={SCALE}", "--init-steps=dtGvp", "--quiet")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._administer(f'DROP DATABASE IF EXISTS "{self._database}" WITH (FORCE)')

    async def try_clients(self, seconds: int) -> None:
        """Find the number of clients that is fastest."""
        rates: dict[int, float] = {}
        for clients in CLIENTS:
            self.clients = clients
            with suppress(PgbenchError):  # nothing was done in so short a time
                rates[clients] = await self.run(seconds)
        self.clients = max(rates, key=lambda clients: rates[clients])

    async def run(self, seconds: int) -> float:
        """Run the default script; return transactions a second, without connecting."""
        said = await self._run(
            f"--client={self.clients}",
            f"--jobs={_THREADS}",
            f"--time={seconds}",
            "--protocol=prepared",
        )
        found = _TPS.search(said)
        if found is None:
            raise PgbenchError(said)
        return float(found[1])

    async def _administer(self, statement: str) -> None:
        admin = await asyncpg.connect(self._url)
        await admin.execute(statement)
        await admin.close()

    async def _run(self, *arguments: str) -> str:
        url = urlsplit(self._url)
        # In a thread: the loop's own way to start a process forks, which gRPC's channels forbid.
        done = await asyncio.to_thread(
            subprocess.run,
            [str(find_binaries() / "pgbench"), *arguments, self._database],
            env={
                **os.environ,
                "PGHOST": url.hostname or "",
                "PGPORT": str(url.port or 5432),
                "PGUSER": unquote(url.username or ""),
                "PGPASSWORD": unquote(url.password or ""),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise PgbenchError(done.stdout + done.stderr)
        return done.stdout
