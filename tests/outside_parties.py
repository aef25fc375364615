"""What tests of channels stand on: a receiver of callbacks, a proxy that misbehaves, references.

All of it speaks over real sockets; only the outside parties are played, by the sandbox itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
from aiohttp import web
from pydantic import SecretStr

from common.clock import SystemClock
from common.ids import IdFactory, channel_reference
from common.money import Money
from services.channel.adapters import build_adapter
from services.channel.guard import Guard, Hook
from services.channel.results import (
    ChannelError,
    ChannelResult,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    ShowQrCode,
    State,
)
from services.channel.transport import Transport
from services.sandbox.cards import CardBehaviour, test_card
from services.sandbox.config import SandboxSettings
from services.sandbox.credentials import SandboxCredentials
from services.sandbox.faults.plan import PPM, FaultKind, FaultPlan, FaultRule
from services.sandbox.movements import MovementKind, list_movements
from services.sandbox.serving import Sandbox

CLOCK = SystemClock()
_ids = IdFactory(CLOCK)


def reference(prefix: str = "pay") -> str:
    """Return a fresh reference of ours."""
    return channel_reference(_ids.new(prefix))


def usd(amount_minor: int) -> Money:
    """Return an amount of the sample's currency."""
    return Money("USD", amount_minor)


def pay_request(
    amount_minor: int = 1234,
    *,
    behaviour: CardBehaviour = CardBehaviour.APPROVE,
    notify_url: str = "",
    expires_at: datetime | None = None,
) -> PayRequest:
    """Return a request that every adapter can use: it names a card, too."""
    return PayRequest(
        reference=reference(),
        requested_at=datetime.now(UTC),
        money=usd(amount_minor),
        subject="CD purchase & more=1",
        notify_url=notify_url,
        expires_at=expires_at,
        card_number=SecretStr(test_card(behaviour, 7)),
    )


def question_of(request: PayRequest) -> QueryRequest:
    """Return the question how a payment stands."""
    return QueryRequest(
        reference=request.reference, requested_at=request.requested_at, money=request.money
    )


def refund_of(
    request: PayRequest, amount_minor: int, transaction_no: str, notify_url: str = ""
) -> RefundRequest:
    """Return the request to give back part of a payment."""
    return RefundRequest(
        reference=reference("rfd"),
        requested_at=datetime.now(UTC),
        money=usd(amount_minor),
        payment_reference=request.reference,
        payment_requested_at=request.requested_at,
        payment_money=request.money,
        payment_channel_transaction_no=transaction_no,
        reason="returned",
        notify_url=notify_url,
    )


def sandbox_settings(
    folder: Path, credentials: SandboxCredentials, **changes: object
) -> SandboxSettings:
    """Return settings of a sandbox on a free port that is quick to repeat."""
    values: dict[str, object] = {
        "port": 0,
        "database_file": folder / "sandbox.sqlite",
        "parties_file": credentials.parties_file,
        "notify_intervals_seconds": (0.05, 0.1, 0.2),
        "processing_seconds": 0.3,
        **changes,
    }
    return SandboxSettings.model_validate(values)


def fault(
    kind: FaultKind,
    *,
    party: str = "",
    verb: str = "",
    rate_ppm: int = PPM,
    delay_ms: int = 0,
    hits_max: int = 0,
) -> FaultRule:
    """Return a rule of a fault plan, named after its kind; by default it hits each request."""
    return FaultRule(
        rule_id=f"{kind.value.lower()}.{party}.{verb}",
        kind=kind,
        party=party,
        verb=verb,
        rate_ppm=rate_ppm,
        delay_ms=delay_ms,
        hits_max=hits_max,
    )


async def misbehave(sandbox: Sandbox, *rules: FaultRule, seed: int = 1) -> None:
    """Put a fault plan in force; without rules the parties behave again."""
    await sandbox.conduct.put_plan(FaultPlan(seed, rules))


async def moved(sandbox: Sandbox) -> list[tuple[MovementKind, str, int]]:
    """Return kind, our reference and amount of what the parties really moved, in order."""
    found = await sandbox.store.run(lambda db: list_movements(db, after=0, limit=10_000))
    return [(one.kind, one.reference, one.money.amount_minor) for one in found]


@dataclass
class Channels:
    """Our channels, guarded, against one sandbox (or a proxy before it)."""

    credentials: SandboxCredentials
    session: aiohttp.ClientSession
    url: str
    payer_url: str

    def guard(
        self,
        code: str,
        *,
        url: str | None = None,
        timeout_seconds: float = 5.0,
        hooks: tuple[Hook, ...] = (),
        **changes: object,
    ) -> Guard:
        """Return a channel, by default as the set-up configures it."""
        one = self.credentials.channels[code]
        transport = Transport(self.session, code, timeout_seconds=timeout_seconds)
        config = {**one.at(url or self.url), **changes}
        adapter = build_adapter(one.adapter, code, config, transport, CLOCK)
        return Guard(adapter, clock=CLOCK, hooks=hooks, timeout_seconds=timeout_seconds)

    async def scan(self, qr_code: str, outcome: str = "pay") -> int:
        """Play the person who scans a code; returns the HTTP status."""
        async with self.session.post(
            f"{self.payer_url}/payer/alipay/pay", json={"qr_code": qr_code, "outcome": outcome}
        ) as response:
            return response.status

    async def pay_for_good(self, guard: Guard, request: PayRequest) -> str:
        """Pay to the end; returns the channel's number of the payment."""
        result = await guard.pay(request)
        if isinstance(result.next_action, ShowQrCode):
            assert await self.scan(result.next_action.content) == 200
            result = await guard.query(question_of(request))
        assert result.state is State.SUCCEEDED
        assert result.money == request.money
        return result.channel_transaction_no


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until the condition holds; fails after a bound."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the other side is another process or socket
            await asyncio.sleep(0.01)


async def outcome_of(call: Awaitable[ChannelResult]) -> ChannelResult | ChannelError:
    """Return what a verb answered, or the failure that it raised."""
    try:
        return await call
    except ChannelError as error:
        return error


@dataclass
class Receiver:
    """Our side of the callbacks: keeps what comes, answers as told."""

    url: str = ""
    answer: tuple[int, bytes] = (200, b"success")
    received: list[RawCallback] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        """Keep one callback."""
        self.received.append(RawCallback(body=await request.read(), headers=dict(request.headers)))
        status, body = self.answer
        return web.Response(status=status, body=body)


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    application = web.Application()
    application.router.add_post("/{name}", receiver.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/notify"
    try:
        yield receiver
    finally:
        await runner.cleanup()


Misdeed = Callable[[bytes], bytes | None]
"""What the proxy does with an answer: its bytes, others, or None for silence."""


@dataclass
class Proxy:
    """Stands before the sandbox and misbehaves on demand, one plan entry per request."""

    url: str = ""
    plan: list[str] = field(default_factory=list)
    """`pass`, `swallow` (executed, never answered), `cut` (executed, then closed), `drop` (not
    executed, closed), `500`, `429`, `garbage`, `tamper`; an empty plan passes everything."""
    requests: int = 0

    async def serve(
        self, upstream: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Handle one connection."""
        try:
            while True:
                request = await _message(reader)
                self.requests += 1
                misdeed = self.plan.pop(0) if self.plan else "pass"
                answer = await self._answer(misdeed, request, upstream)
                if answer is None:
                    if misdeed == "swallow":
                        await reader.read()
                    break
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(
        self, misdeed: str, request: bytes, upstream: tuple[str, int]
    ) -> bytes | None:
        fixed = {
            "drop": None,
            "500": b"HTTP/1.1 500 Oops\r\ncontent-length: 2\r\n\r\n{}",
            "429": b"HTTP/1.1 429 Slow\r\ncontent-length: 0\r\n\r\n",
            "garbage": b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n\xff\xfe{;&=",
        }
        if misdeed in fixed:
            return fixed[misdeed]
        reader, writer = await asyncio.open_connection(*upstream)
        try:
            writer.write(request)
            answer = await _message(reader)
        finally:
            writer.close()
        if misdeed in ("swallow", "cut"):
            return None
        if misdeed == "tamper":
            # Changes a digit of an amount or code, as a thief on the line would.
            head, _, body = answer.partition(b"\r\n\r\n")
            body = body.replace(b"10000", b"10003").replace(b"respCode=00", b"respCode=05")
            return head + b"\r\n\r\n" + body
        return answer


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head + await reader.readexactly(length)


@asynccontextmanager
async def proxying(url: str) -> AsyncIterator[Proxy]:
    """Run a proxy before the server at `url`."""
    host, port = url.removeprefix("http://").split(":")
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve((host, int(port)), reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    proxy.url = f"http://{address[0]}:{address[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
