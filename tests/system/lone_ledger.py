"""The ledger alone: one process, and PostgreSQL. Nothing else is running, or told of."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from paymesh.account.ledger import LedgerClient, Patience
from paymesh.mesh.connect import dial
from paymesh.mesh.identity import Identity

from common.embedded import ports

ROOT = Path(__file__).resolve().parents[2]
SECRET = "run:lone-secret"


class LoneLedger:
    """`paymesh serve account --alone` on a database; an async context manager."""

    def __init__(
        self,
        database_url: str,
        log: Path,
        *,
        settings: Mapping[str, str] | None = None,
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._log = log
        self._credentials = credentials
        self.port = ports.choose(1)[0]
        # None of the variables that name a broker, Redis or another topology.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PAYMESH_")}
        self.environment = {
            **kept,
            "PAYMESH_POSTGRES_URL": database_url,
            "PAYMESH_PORTS": json.dumps({"account": self.port}),
            "PAYMESH_MESH_SECRET": SECRET,
            "PAYMESH_PRINCIPAL_KEY": SECRET,
            "PAYMESH_PAGE_TOKEN_KEY": SECRET,
            **(settings or {}),
        }
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        """Where it is reached: with TLS, by the name in its certificate."""
        host = "127.0.0.1" if self._credentials is None else "localhost"
        return f"{host}:{self.port}"

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process that runs."""
        if self._process is None:
            raise RuntimeError("the ledger was not started")
        return self._process

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.returncode is None:
            await self.end(signal.SIGKILL)

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "paymesh",
                "serve",
                "account",
                "--alone",
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=ROOT,
            )
        async with asyncio.timeout(60):
            while not await self._serves():
                assert self.process.returncode is None, self.log()
                await asyncio.sleep(0.05)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.process.send_signal(number)
        async with asyncio.timeout(40):
            return await self.process.wait()

    async def command(self, *arguments: str) -> str:
        """Run a command of the platform's people against it; return what it wrote."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "paymesh",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, "PAYMESH_TOPOLOGY_PATH": "topology/ledger/ledger.toml"},
            cwd=ROOT,
        )
        out, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        return out.decode()

    def log(self) -> str:
        """What it said."""
        return self._log.read_text()

    def client(
        self, patience: Patience | None = None, way: str = "stream", **who: object
    ) -> LedgerClient:
        """A client of it; `who` are further properties of its identity."""
        make: Callable[..., Identity] = Identity
        identity = make("ledger_client", SECRET, principal_secret=SECRET, **who)
        return LedgerClient.connect(
            self.address,
            identity=identity,
            way="unary" if way == "unary" else "stream",
            patience=patience,
        )

    async def _serves(self) -> bool:
        async with dial(self.address, 65_536, self._credentials) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            try:
                answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
            except grpc.aio.AioRpcError:
                return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
