"""A ledger under load: one account process as production runs it, its database, and a caller.

The process is `paymesh serve account` with everything that runs beside its calls: expiry of holds,
drain of buffers, vouchers, proofs, relay of events. The caller is a process of the mesh too: the
generated stub, the production chain of middleware, one stream.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import secrets
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from paymesh.account.v1 import (
    AccountServiceStub,
    AccountSpec,
    CheckBooksRequest,
    CreateTransferRequest,
    CreateTransfersRequest,
    OpenAccountsRequest,
    TransferKind,
    TransferResult,
    TransferSpec,
    TransferStatus,
)
from pydantic import SecretStr

from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal, bound
from common.embedded import ports
from common.embedded.cluster import Servers
from common.embedded.supervisor import Child, Supervisor
from common.ids import IdFactory
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from services.cli.deployment import ROOT, serves

ACCOUNTS: Final = 10_000
IN_FLIGHT: Final = 256
BATCH_TRANSFERS: Final = 1_000
BATCHES_IN_FLIGHT: Final = 4
FUNDS_MINOR: Final = 10**9
"""What each account is given to begin with: limits are on."""
AMOUNT_MINOR_MAX: Final = 10_000
"""Amounts are between 1 and this."""

_CALLER: Final = "payment"
_OPERATOR: Final = "operator"
_OPEN_AT_ONCE: Final = 1_000
_TIMEOUT_SECONDS: Final = 30.0
_CHECK_TIMEOUT_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.05
_WAITING: Final = """
    SELECT count(*) FROM transfers AS t
    WHERE t.book = 0
        AND t.written_in > (SELECT c.written_in FROM voucher_cursors AS c WHERE c.book = 0)
"""
_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")

Request = TypeVar("Request")


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU time, in seconds."""

    process: float
    """Of the account process."""
    database: float
    """Of the PostgreSQL backends that it uses."""


class LedgerProcess:
    """One account process with a database of its own, and a caller's stub; a context manager."""

    def __init__(self, servers: Servers, name: str) -> None:
        self._servers = servers
        self._name = name
        self._database = f"bench_{name}_{secrets.token_hex(4)}"
        self._stack = AsyncExitStack()
        self._supervisor: Supervisor | None = None
        self._random = Random(1)  # noqa: S311 - a choice of accounts, not a secret
        self._ids = IdFactory(SystemClock())
        self._principal = Principal(actor_type=ActorType.MERCHANT, actor_id=self._ids.new("key"))
        self.accounts: list[str] = []
        """Accounts of users, with money."""
        self.shop = self._ids.new("acc")
        """An account that everybody pays."""
        self.fund = self._ids.new("acc")
        """Where the money comes from: may go below zero."""
        url = urlsplit(servers.postgres_url)
        self.url = urlunsplit(url._replace(path=f"/{self._database}"))
        """The process's database, as a role that may do everything."""

    async def __aenter__(self) -> Self:
        admin = await asyncpg.connect(self._servers.postgres_url)
        await admin.execute(f'CREATE DATABASE "{self._database}" TEMPLATE template0')
        await admin.close()
        self._port = ports.choose(1)[0]
        await self.start()
        host = self._make_host()
        self._stack.push_async_callback(host.close)
        self.stub = AccountServiceStub(host.channel(_CALLER, "account"))
        self._operator = AccountServiceStub(host.channel(_OPERATOR, "account"))
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()
        await self.stop()
        admin = await asyncpg.connect(self._servers.postgres_url)
        await admin.execute(f'DROP DATABASE IF EXISTS "{self._database}" WITH (FORCE)')
        await admin.close()

    async def start(self) -> None:
        """Start the process and wait until it serves."""
        address = f"127.0.0.1:{self._port}"
        child = Child(
            name=self._name,
            argv=[sys.executable, "-m", "paymesh", "serve", "account"],
            env={
                **self._servers.environment,
                "PAYMESH_POSTGRES_URL": self.url,
                "PAYMESH_REDIS_NAMESPACE": f"{self._database}.",
                "PAYMESH_AMQP_NAMESPACE": f"{self._database}.",
                "PAYMESH_TOPOLOGY_PATH": str(ROOT / "topology" / "processes.toml"),
                "PAYMESH_PORTS": json.dumps({"account": self._port}),
                "PAYMESH_PRINCIPAL_KEY": "bench:bench",
                "PAYMESH_MESH_SECRET": "bench:bench",
                "PAYMESH_LOG_LEVEL": "WARNING",
            },
            cwd=ROOT,
            ready=lambda: serves(address),
            ready_timeout_seconds=60,
        )
        folder = self._servers.folder
        self._supervisor = Supervisor(
            [child], run_folder=folder / f"run-{self._name}", log_folder=folder / "logs"
        )
        await self._supervisor.start()

    async def stop(self) -> None:
        """Stop the process, so that its database is nobody's."""
        if self._supervisor is not None:
            await self._supervisor.stop()
            self._supervisor = None

    def _make_host(self) -> Host:
        settings = MeshSettings(secret=SecretStr("bench:bench"))
        topology = load_topology(ROOT / "topology" / "processes.toml", {})
        chain = production_chain(
            settings=settings,
            principal_key="bench:bench",
            access=load_access(ROOT / "topology" / "access.toml"),
            clock=SystemClock(),
        )
        return Host(
            process=_CALLER,
            topology=topology.with_ports({"account": self._port}),
            middleware=chain,
            clock=SystemClock(),
            settings=settings,
        )

    # Setting up.

    async def open_accounts(self) -> None:
        """Open the accounts and give each of them money, by the ledger's own calls."""
        self.accounts = [self._ids.new("acc") for _ in range(ACCOUNTS)]
        specs = [
            AccountSpec(id=account, owner_id=account, kind="user_available", currency_code="USD")
            for account in self.accounts
        ]
        specs.append(self._spec(self.shop, "merchant_pending"))
        specs.append(self._spec(self.fund, "channel_receivable"))
        with bound(self._context()):
            for place in range(0, len(specs), _OPEN_AT_ONCE):
                request = OpenAccountsRequest(accounts=specs[place : place + _OPEN_AT_ONCE])
                await self.stub.OpenAccounts(request, timeout=_TIMEOUT_SECONDS)
        gifts = [
            self._transfer(self.fund, account, amount_minor=FUNDS_MINOR)
            for account in self.accounts
        ]
        await self.run_batches(
            [
                CreateTransfersRequest(transfers=gifts[place : place + BATCH_TRANSFERS])
                for place in range(0, len(gifts), BATCH_TRANSFERS)
            ]
        )

    @staticmethod
    def _spec(account_id: str, kind: str) -> AccountSpec:
        return AccountSpec(id=account_id, owner_id=account_id, kind=kind, currency_code="USD")

    # Load. Requests are made beforehand: the caller's own work is not what is measured.

    def singles(self, count: int, *, hot: bool = False) -> list[tuple[str, CreateTransferRequest]]:
        """Return requests of one transfer each, each of a story of its own."""
        return [
            (f"btr_{spec.id[4:]}", CreateTransferRequest(transfer=spec))
            for spec in self._transfers(count, hot=hot)
        ]

    def batches(self, count: int) -> list[CreateTransfersRequest]:
        """Return requests of `BATCH_TRANSFERS` transfers each."""
        return [
            CreateTransfersRequest(transfers=self._transfers(BATCH_TRANSFERS)) for _ in range(count)
        ]

    def _transfers(self, count: int, *, hot: bool = False) -> Iterator[TransferSpec]:
        choose, amount = self._random.choice, self._random.randint
        for _ in range(count):
            debit = credit = choose(self.accounts)
            while credit == debit:
                credit = self.shop if hot else choose(self.accounts)
            yield self._transfer(debit, credit, amount_minor=amount(1, AMOUNT_MINOR_MAX))

    def _transfer(self, debit: str, credit: str, *, amount_minor: int) -> TransferSpec:
        transfer_id = self._ids.new("tfr")
        return TransferSpec(
            id=transfer_id,
            kind=TransferKind.TRANSFER_KIND_SINGLE,
            debit_account_id=debit,
            credit_account_id=credit,
            currency_code="USD",
            amount_minor=amount_minor,
            movement="bench.move",
            reference_id=f"pay_{transfer_id[4:]}",
        )

    async def run_singles(self, requests: Sequence[tuple[str, CreateTransferRequest]]) -> float:
        """Send single calls, `IN_FLIGHT` at a time; return transfers a second."""
        create = self.stub.CreateTransfer

        async def worker(waiting: Iterator[tuple[str, CreateTransferRequest]]) -> None:
            for story, request in waiting:
                with bound(self._context(story)):
                    answer = await create(request, timeout=_TIMEOUT_SECONDS)
                _check((answer.result,))

        return await _timed(worker, requests, IN_FLIGHT)

    async def run_batches(self, requests: Sequence[CreateTransfersRequest]) -> float:
        """Send batch calls, `BATCHES_IN_FLIGHT` at a time; return transfers a second."""
        create = self.stub.CreateTransfers
        stories = itertools.count()

        async def worker(waiting: Iterator[CreateTransfersRequest]) -> None:
            for request in waiting:
                with bound(self._context(f"btr_{next(stories)}")):
                    answer = await create(request, timeout=_TIMEOUT_SECONDS)
                _check(answer.results)

        calls = await _timed(worker, requests, BATCHES_IN_FLIGHT)
        return calls * BATCH_TRANSFERS

    def _context(self, story: str = "") -> CallContext:
        return CallContext(principal=self._principal, biz_trace_id=story)

    async def settle(self) -> float:
        """Wait until the vouchers of all transfers are made; return how many were made a second.

        0 when too few were left to tell.
        """
        connection = await asyncpg.connect(self.url, server_settings={"search_path": "account"})
        begun_at = time.perf_counter()
        left = waiting = await connection.fetchval(_WAITING)
        while waiting:
            await asyncio.sleep(_POLL_SECONDS)
            waiting = await connection.fetchval(_WAITING)
        await connection.close()
        seconds = time.perf_counter() - begun_at
        return left / seconds if left > BATCH_TRANSFERS else 0.0

    # Figures.

    async def spent(self) -> Spent:
        """Return the CPU time that the process and its backends have used so far."""
        supervisor = self._supervisor
        pid = None if supervisor is None else supervisor.pid(self._name)
        if pid is None:
            raise RuntimeError("the account process does not run")
        connection = await asyncpg.connect(self.url)
        rows = await connection.fetch(
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.close()
        return Spent(_cpu_seconds(pid), sum(_cpu_seconds(row["pid"]) for row in rows))

    async def check_books(self) -> int:
        """Have the ledger check its books; return the number of entries.

        Raises:
            RuntimeError: they do not agree.
        """
        context = CallContext(
            principal=Principal(
                actor_type=ActorType.OPERATOR, actor_id="bench", roles=("operator",)
            ),
            caller=_OPERATOR,
        )
        with bound(context):
            answer = await self._operator.CheckBooks(
                CheckBooksRequest(), timeout=_CHECK_TIMEOUT_SECONDS
            )
        if answer.findings:
            raise RuntimeError(f"the books do not agree: {list(answer.findings)}")
        return int(answer.entries)


def say(progress: str) -> None:
    """Tell whoever waits how far a bench is."""
    sys.stdout.write(f"  {progress}\n")
    sys.stdout.flush()


async def _timed(
    worker: Callable[[Iterator[Request]], Awaitable[None]],
    requests: Sequence[Request],
    in_flight: int,
) -> float:
    """Let workers share the requests; return requests a second."""
    waiting = iter(requests)
    begun_at = time.perf_counter()
    await asyncio.gather(*(worker(waiting) for _ in range(in_flight)))
    return len(requests) / (time.perf_counter() - begun_at)


def _check(results: Iterable[TransferResult]) -> None:
    for result in results:
        if result.status != TransferStatus.TRANSFER_STATUS_BOOKED:
            raise RuntimeError(f"not booked: {result}")


def _cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process; 0 for one that has gone."""
    try:
        line = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    fields = line.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND
