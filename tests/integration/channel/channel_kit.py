"""The channel service without its surface, before a live sandbox behind a misbehaving proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web
from outside_parties import Proxy, proxying, sandbox_settings
from paymesh.channel.v1 import CallbackQuestioned
from played_party import CODE, PlayedParty, played_channel
from pydantic import SecretStr

import services.channel
from common import context
from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.db.types import Record
from common.errors import PaymeshError
from common.events.event import event_from_bytes
from common.events.outbox import Outbox
from common.ids import IdFactory, channel_reference
from common.money import Money
from common.paging import PageTokens
from services.channel.catalogue import Catalogue
from services.channel.config import ChannelSettings
from services.channel.domain import Charge
from services.channel.events import announcer
from services.channel.flows.charge_payer import NewCharge, charge_payer
from services.channel.flows.parts import Parts
from services.channel.flows.take_callback import take_callback
from services.channel.results import (
    Acknowledgement,
    CallbackSignatureInvalidError,
    RawCallback,
)
from services.channel.server import ChannelServicer
from services.channel.store.channels import ChannelTable
from services.channel.store.movements import ChannelStore
from services.channel.transport import open_session
from services.channel.writer import ChannelWriter
from services.sandbox.cards import CardBehaviour, test_card
from services.sandbox.credentials import SandboxCredentials, make_sandbox_credentials
from services.sandbox.movements import list_movements
from services.sandbox.serving import Sandbox

FOLDER = Path(services.channel.__file__).parent
PAYMENT = CallContext(
    principal=Principal(merchant_id="mer_1", actor_type=ActorType.MERCHANT, actor_id="key_1"),
    biz_trace_id="biz_story",
)


class ShiftedClock(SystemClock):
    """The machine's clock, set ahead at will."""

    ahead = timedelta()

    def now(self) -> datetime:
        """Return the shifted time."""
        return datetime.now(UTC) + self.ahead


class CardsAtHand:
    """Cards as member would reveal them."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}
        self.failure: PaymeshError | None = None

    async def reveal(self, card_id: str) -> SecretStr | None:
        """Return a number; None for a card that is not bound."""
        if self.failure is not None:
            raise self.failure
        number = self.numbers.get(card_id)
        return None if number is None else SecretStr(number)


@dataclass
class ChannelKit:
    """The service's parts, and the outside world as tests see it."""

    parts: Parts
    pool: Pool
    servicer: ChannelServicer
    sandbox: Sandbox
    proxy: Proxy
    session: aiohttp.ClientSession
    clock: ShiftedClock
    cards: CardsAtHand
    settings: ChannelSettings
    party: PlayedParty
    """At the other end of the channel `played_a`."""
    acknowledged: list[Acknowledgement] = field(default_factory=list)

    def new_reference(self, prefix: str = "att") -> str:
        """Return a reference that was never used."""
        return channel_reference(self.parts.ids.new(prefix))

    def card(self, behaviour: CardBehaviour = CardBehaviour.APPROVE) -> str:
        """Bind a test card; return its id."""
        card_id = self.parts.ids.new("crd")
        self.cards.numbers[card_id] = test_card(behaviour, 7)
        return card_id

    def quick(
        self,
        amount_minor: int = 1234,
        behaviour: CardBehaviour = CardBehaviour.APPROVE,
        **changes: Any,
    ) -> NewCharge:
        """Return a charge of a bound card."""
        return self._new("unionpay_a", "quick_pay", amount_minor, self.card(behaviour), changes)

    def qr(self, amount_minor: int = 1234, **changes: Any) -> NewCharge:
        """Return a charge by QR code."""
        return self._new("alipay_a", "qr_pay", amount_minor, "", changes)

    def played(self, amount_minor: int = 1000, **changes: Any) -> NewCharge:
        """Return a charge at the played party."""
        return self._new(CODE, "quick_pay", amount_minor, "", changes)

    def _new(
        self, channel: str, product: str, amount_minor: int, card_id: str, changes: dict[str, Any]
    ) -> NewCharge:
        values: dict[str, Any] = {
            "reference": self.new_reference(),
            "channel": channel,
            "payment_id": self.parts.ids.new("pay"),
            "product": product,
            "card_id": card_id,
            "subject": "CDs",
            "amount": Money("USD", amount_minor),
            "expires_at": None,
        }
        return NewCharge(**{**values, **changes})

    async def charge(self, asked: NewCharge) -> Charge:
        """Charge as payment would."""
        return await charge_payer(self.parts, asked, PAYMENT)

    async def scan(self, qr_code: str, outcome: str = "pay") -> None:
        """Play the person who scans a code."""
        wish = {"qr_code": qr_code, "outcome": outcome}
        async with self.session.post(f"{self.sandbox.url}/payer/alipay/pay", json=wish) as answer:
            assert answer.status == 200

    async def stored(self, reference: str) -> Charge:
        """Return the row of a charge."""
        return (await self.parts.store.find_charges([reference]))[reference]

    async def becomes(self, reference: str, state: str) -> Charge:
        """Wait until a charge has a state."""
        async with asyncio.timeout(10):
            while (charge := await self.stored(reference)).state != state:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return charge

    async def movements(self, reference: str) -> int:
        """Count the movements of money that the outside really made under a reference."""
        found = await self.sandbox.store.run(lambda db: list_movements(db, after=0, limit=10_000))
        return sum(1 for one in found if one.reference == reference)

    async def rows(self, statement: str, *arguments: object) -> list[Record]:
        """Read rows."""
        async with self.pool.acquire() as connection:
            return await connection.fetch(statement, *arguments)

    async def events(self, reference: str) -> list[int]:
        """Return the versions of which the outside was told, in order."""
        rows = await self.rows(
            "SELECT aggregate_version FROM outbox WHERE aggregate_id = $1 ORDER BY position",
            reference,
        )
        return [row["aggregate_version"] for row in rows]

    async def questioned(self, reference: str) -> list[CallbackQuestioned]:
        """Return the callbacks about a reference that were told of as questioned, in order."""
        rows = await self.rows(
            "SELECT body FROM outbox WHERE type = 'channel.callback.questioned.v1' AND"
            " aggregate_id IN (SELECT callback_id FROM callbacks WHERE reference = $1)"
            " ORDER BY position",
            reference,
        )
        return [
            CallbackQuestioned.FromString(event_from_bytes(row["body"]).payload) for row in rows
        ]

    async def verdicts(self, reference: str) -> list[str]:
        """Return what the callbacks about a reference came to."""
        rows = await self.rows(
            "SELECT verdict FROM callbacks WHERE reference = $1 ORDER BY received_at, verdict",
            reference,
        )
        return [row["verdict"] for row in rows]

    async def call_back(self, channel: str, raw: RawCallback) -> Acknowledgement:
        """Hand in a callback as edge would."""
        with context.bound(CallContext()):
            return await take_callback(self.parts, channel, raw)

    def alipay_notice(self, reference: str, notice_id: str, **changes: str) -> RawCallback:
        """Return a notification that the simulated Alipay really signs."""
        app_id = "2021000000000001"
        fields = {
            "app_id": app_id,
            "notify_id": notice_id,
            "notify_type": "trade_status_sync",
            "out_trade_no": reference,
            "trade_no": f"T{reference}",
            "trade_status": "TRADE_SUCCESS",
            "total_amount": "12.34",
            "trans_currency": "USD",
            "gmt_payment": "2026-01-02 03:04:05",
            "charset": "utf-8",
            "sign_type": "RSA2",
            **changes,
        }
        gateway = self.sandbox._alipay
        return RawCallback(body=gateway.sign_notice(app_id, fields, wrongly=False))


def forged(raw: RawCallback, **changes: str) -> RawCallback:
    """Return a callback with fields changed after it was signed."""
    return RawCallback(body=raw.body + b"&" + urlencode(changes).encode())


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> SandboxCredentials:
    """Keys of both sides."""
    return make_sandbox_credentials(tmp_path_factory.mktemp("credentials"))


@pytest.fixture(scope="module")
async def sandbox(
    tmp_path_factory: pytest.TempPathFactory, credentials: SandboxCredentials
) -> AsyncIterator[Sandbox]:
    """The outside parties."""
    one = Sandbox(sandbox_settings(tmp_path_factory.mktemp("sandbox"), credentials))
    async with one.running():
        yield one
    await one.close()


@pytest.fixture(scope="module")
async def channel_url(database_url: str) -> str:
    """The module's database with the schema `channel`."""
    url = await prepare_schema(database_url, "channel")
    await migrate(url, "channel", {"channel": FOLDER / "migrations"})
    return url


@pytest.fixture(scope="module")
async def pool(channel_url: str) -> AsyncIterator[Pool]:
    """Connections."""
    one = await open_pool(channel_url, SessionSettings("channel"), connections_max=6)
    yield one
    await one.close()


@pytest.fixture
async def callbacks() -> AsyncIterator[tuple[str, list[ChannelKit]]]:
    """Where channels call back: its address, and whose parts take what comes."""
    kits: list[ChannelKit] = []

    async def take(request: web.Request) -> web.Response:
        raw = RawCallback(body=await request.read())
        try:
            answer = await kits[0].call_back(request.match_info["channel"], raw)
        except CallbackSignatureInvalidError:
            return web.Response(status=400)
        kits[0].acknowledged.append(answer)
        return web.Response(status=answer.status, body=answer.body)

    application = web.Application()
    application.router.add_post("/callbacks/{channel}", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}/callbacks", kits
    await runner.cleanup()


NewKit = Callable[[], Awaitable[ChannelKit]]


@pytest.fixture
async def new_kit(
    pool: Pool,
    sandbox: Sandbox,
    credentials: SandboxCredentials,
    callbacks: tuple[str, Sequence[ChannelKit]],
    tmp_path: Path,
) -> AsyncIterator[NewKit]:
    """Makes services that know nothing of each other, as processes would."""
    kits: list[ChannelKit] = []
    channels_file = tmp_path / "channels.toml"
    text = (FOLDER / "channels.toml").read_text()
    quick = "request_life_seconds = 120\ntimeout_seconds = 1.5"
    channels_file.write_text(text.replace("request_life_seconds = 120", quick))
    party = PlayedParty()
    async with proxying(sandbox.url) as proxy, open_session() as session:

        async def new() -> ChannelKit:
            settings = ChannelSettings(
                channels_file=channels_file,
                credentials_file=credentials.parties_file.with_name("channels.json"),
                sandbox_url=proxy.url,
                callback_url=callbacks[0],
                reload_seconds=0.05,
            )
            clock = ShiftedClock()
            ids = IdFactory(clock)
            cards = CardsAtHand()
            store = ChannelStore(pool, Outbox(), announcer(ids))
            catalogue = Catalogue(ChannelTable(pool), session, clock, settings)
            await catalogue.load()
            catalogue._channels[CODE] = played_channel(party, clock)
            writer = ChannelWriter(store, 64)
            parts = Parts(
                store, writer, catalogue, cards, clock, ids, callback_question_seconds=0.3
            )
            servicer = ChannelServicer(parts, PageTokens("test"))
            kit = ChannelKit(
                parts, pool, servicer, sandbox, proxy, session, clock, cards, settings, party
            )
            kits.append(kit)
            callbacks[1].append(kit)  # type: ignore[attr-defined]
            return kit

        yield new
        for kit in kits:
            await kit.parts.drain()


@pytest.fixture
async def kit(new_kit: NewKit) -> ChannelKit:
    """One service."""
    return await new_kit()
