"""A running sandbox: store, gateways, courier and HTTP server, brought up and down in order."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import uvicorn

from common.clock import Clock, SystemClock
from services.sandbox.alipay import gateway as alipay
from services.sandbox.alipay.gateway import AlipayGateway
from services.sandbox.config import SandboxSettings, load_parties
from services.sandbox.faults.conduct import Conduct
from services.sandbox.http import Doors, Line
from services.sandbox.notices import Courier, Manners
from services.sandbox.store import Store
from services.sandbox.unionpay import gateway as unionpay
from services.sandbox.unionpay.gateway import UnionpayGateway

KEEP_ALIVE_SECONDS: Final = 75
"""Longer than any client keeps an idle connection, so that the client closes first."""


class _Server(uvicorn.Server):
    """uvicorn, without its hands on the process's signals: whoever runs us decides when to stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Sandbox:
    """One sandbox: listens from its making on, serves while `run` or `running` does."""

    def __init__(self, settings: SandboxSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self.store = Store(settings.database_file)
        parties = load_parties(settings.parties_file)
        self.conduct = Conduct(self.store, self._clock)
        self._alipay = AlipayGateway(
            self.conduct, parties.alipay, self._clock, lambda: secrets.token_hex(12)
        )
        manners = {"alipay": Manners(self._alipay.sign_notice, alipay.acknowledged)}
        self._unionpay: UnionpayGateway | None = None
        if parties.unionpay is not None:
            self._unionpay = UnionpayGateway(
                self.conduct,
                parties.unionpay,
                self._clock,
                processing_seconds=settings.processing_seconds,
            )
            manners["unionpay"] = Manners(self._unionpay.sign_notice, unionpay.acknowledged)
        self._courier = Courier(
            self.store,
            self._clock,
            manners,
            intervals_seconds=settings.notify_intervals_seconds,
            timeout_seconds=settings.notify_timeout_seconds,
        )
        self.conduct.deliver_by(self._courier)
        self._socket = _listen(settings.host, settings.port)

    @property
    def url(self) -> str:
        """Where it listens: `http://127.0.0.1:8600`."""
        host, port = self._socket.getsockname()[:2]
        return f"http://{host}:{port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """Serve and deliver callbacks until the block is left; may be entered again after that.

        Yields a task that ends, with its error, when serving or delivering ends by itself.
        """
        await self.conduct.load()
        server = _Server(
            uvicorn.Config(
                Doors(self._alipay, self._unionpay, self.conduct).application(),
                http=Line,
                lifespan="off",
                ws="none",
                log_config=None,
                log_level="warning",
                access_log=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=5,
            )
        )
        # The server closes the socket that it is given; ours stays for the next time.
        serving = asyncio.create_task(server.serve([self._socket.dup()]))
        delivering = asyncio.create_task(self._courier.run())
        watching = asyncio.create_task(_first_end(serving, delivering))
        try:
            yield watching
        finally:
            server.should_exit = True
            delivering.cancel()
            watching.cancel()
            await asyncio.wait((serving, delivering, watching))

    async def run(self) -> None:
        """Serve until cancelled; raises when something ends by itself."""
        async with self.running() as watching:
            await watching

    async def close(self) -> None:
        """Stop listening and close the file."""
        self._socket.close()
        await self.store.close()


async def _first_end(*tasks: asyncio.Task[None]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    raise RuntimeError("the sandbox stopped serving by itself")


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    return listener


async def serve(settings: SandboxSettings, clock: Clock | None = None) -> None:
    """Run a sandbox until cancelled."""
    sandbox = Sandbox(settings, clock)
    try:
        await sandbox.run()
    finally:
        await sandbox.close()
