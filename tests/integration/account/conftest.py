"""A ledger on a database of its own, as wiring would build it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import services.account
from common.clock import SystemClock
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from services.account.chart_files import read_chart
from services.account.config import AccountSettings
from services.account.domain.accounts import Account, AccountSpec, AccountStatus
from services.account.domain.transfers import Transfer, TransferResult
from services.account.flows.change_account import (
    ChangeRequest,
    change_limits,
    set_account_buffering,
    set_account_status,
)
from services.account.flows.cut_day import cut_book, open_book
from services.account.flows.drain_buffers import drain_account
from services.account.flows.expire_holds import expire_holds
from services.account.flows.open_accounts import open_accounts
from services.account.flows.post_transfers import Ledger
from services.account.store.accounts import AccountStore
from services.account.store.buffers import BufferStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from services.account.store.statements import StatementLine, StatementStore
from tests.scenarios.account.language import BASE_DATE
from tests.scenarios.account.memory import line_on

if TYPE_CHECKING:
    from general_ledger_rpc import GeneralLedger

MIGRATIONS = Path(services.account.__file__).parent / "migrations"


@dataclass
class LedgerKit:
    """The account service without its surface."""

    url: str
    pool: Pool
    ledger: Ledger
    accounts: AccountStore
    days: DayStore
    reading: ReadingStore

    async def open(self, specs: list[AccountSpec]) -> list[Account]:
        """Open accounts."""
        return await open_accounts(self.pool, self.accounts, specs)

    async def lines(self, account_id: str) -> list[StatementLine]:
        """All entries of an account."""
        async with StatementStore(self.pool).view() as view:
            return await view.list_entries(
                account_id, after_version=0, last_version=1 << 62, limit=1 << 20
            )

    async def assert_books_fit(self) -> None:
        """Every invariant of the books, by the service's own check."""
        report = await self.reading.check()
        assert report.findings == ()


async def prepare_ledger_schema(url: str, business_date: date = BASE_DATE) -> str:
    """Make the account schema in a database; return the address to work under."""
    own_url = await prepare_schema(url, "account")
    await migrate(own_url, "account", {"account": MIGRATIONS})
    kit = await open_kit(own_url)
    await open_book(kit.pool, kit.days, 0, business_date, "test")
    await close_kit(kit)
    return own_url


async def open_kit(url: str, settings: AccountSettings | None = None) -> LedgerKit:
    """Build what wiring would, on a schema that is there."""
    pool = await open_pool(url, SessionSettings("account"), connections_max=4)
    ledger = Ledger(pool, SystemClock(), settings)
    return LedgerKit(
        url,
        pool,
        ledger,
        AccountStore(pool, read_chart().kinds),
        DayStore(pool),
        ReadingStore(pool),
    )


async def close_kit(kit: LedgerKit) -> None:
    """Drain and close."""
    await kit.ledger.drain()
    await kit.pool.close()


@pytest.fixture(scope="module")
async def ledger_url(database_url: str) -> str:
    """The module's database with the account schema in it."""
    return await prepare_ledger_schema(database_url)


NewKit = Callable[[], Awaitable[LedgerKit]]


@pytest.fixture
async def new_kit(ledger_url: str) -> AsyncIterator[NewKit]:
    """Makes writers that know nothing of each other, as processes would; closed at the end."""
    kits: list[LedgerKit] = []

    async def new(settings: AccountSettings | None = None) -> LedgerKit:
        kit = await open_kit(ledger_url, settings)
        kits.append(kit)
        return kit

    yield new
    await asyncio.gather(*(close_kit(kit) for kit in kits))


@pytest.fixture
async def kit(new_kit: NewKit) -> LedgerKit:
    """One writer."""
    return await new_kit()


@pytest.fixture(scope="module")
async def general_ledger(database_url: str) -> AsyncIterator[GeneralLedger]:
    """The account service, hosted for a module."""
    # Here, because programs that tests kill take from this file too, without pytest's paths.
    from general_ledger_rpc import serving_general_ledger

    async with serving_general_ledger(database_url) as ledger:
        yield ledger


@pytest.fixture
async def books(general_ledger: GeneralLedger) -> GeneralLedger:
    """Inner books as an accountant sees them, without vouchers.

    Modules that look at the books from inside have a fixture of their own by this name.
    """
    await general_ledger.empty()
    return general_ledger


class DatabaseBooks:
    """Scenarios' way into the real ledger."""

    def __init__(self, kit: LedgerKit, tenant_id: str) -> None:
        self._kit = kit
        self._tenant_id = tenant_id
        self._changes = 0

    def now(self) -> datetime:
        """The clock that ids are made from."""
        return SystemClock().now()

    async def open(self, specs: list[AccountSpec]) -> None:
        """Open accounts."""
        await self._kit.open(specs)

    async def post(self, transfers: list[Transfer], *, may_force: bool) -> list[TransferResult]:
        """Book the transfers of one call."""
        return await self._kit.ledger.post(transfers, may_force=may_force)

    async def _request(self, account_id: str) -> ChangeRequest:
        account = await self.account(account_id)
        self._changes += 1
        return ChangeRequest(
            account_id=account_id,
            request_id=f"change-{self._changes}",
            expected_version=account.version,
            reason="scenario",
            actor="OPERATOR:test",
            tenant_id=self._tenant_id,
        )

    async def set_status(self, account_id: str, status: AccountStatus) -> None:
        """Give an account another status."""
        request = await self._request(account_id)
        await set_account_status(self._kit.pool, self._kit.accounts, request, status)

    async def freeze_by_court(self, account_id: str, amount_minor: int) -> None:
        """Freeze an amount."""
        await self._change_limits(account_id, court_frozen_minor=amount_minor)

    async def change_credit_limit(self, account_id: str, amount_minor: int) -> None:
        """Give an account another credit limit."""
        await self._change_limits(account_id, credit_limit_minor=amount_minor)

    async def _change_limits(self, account_id: str, **limits: int) -> None:
        account = await self.account(account_id)
        now = {
            "credit_limit_minor": account.credit_limit_minor,
            "court_frozen_minor": account.court_frozen_minor,
        }
        request = await self._request(account_id)
        await change_limits(self._kit.pool, self._kit.accounts, request, **(now | limits))

    async def set_buffering(self, account_id: str, *, is_buffered: bool) -> None:
        """Turn the buffering of single credits on or off."""
        request = await self._request(account_id)
        await set_account_buffering(
            self._kit.pool, self._kit.accounts, request, is_buffered=is_buffered
        )

    async def drain(self, account_id: str) -> int:
        """Post what waits in an account's buffer; return how many credits."""
        return await drain_account(BufferStore(self._kit.pool), 0, account_id)

    async def wait(self, seconds: int) -> None:
        """Let the time of holds pass, by moving their ends: the database's clock is nobody's."""
        async with self._kit.pool.acquire() as connection:
            await connection.execute(
                "UPDATE holds SET expires_at = expires_at - make_interval(secs => $1)"
                " WHERE tenant_id = $2",
                float(seconds),
                self._tenant_id,
            )

    async def advance(self, business_date: date) -> None:
        """Advance the business date."""
        await cut_book(self._kit.pool, self._kit.days, 0, business_date, "test")

    async def expire(self) -> int:
        """Expire what is due."""
        return await expire_holds(self._kit.ledger, self._kit.reading, 0)

    async def account(self, account_id: str) -> Account:
        """Read an account."""
        return (await self._kit.accounts.read(0, [account_id]))[account_id]

    async def entries(self, account_id: str) -> list[tuple[int, int, int]]:
        """The account's lines: version, change and balance on its normal side."""
        side = (await self.account(account_id)).normal_side
        return [line_on(side, line) for line in await self._kit.lines(account_id)]

    async def kept(self, ids: list[str]) -> set[str]:
        """The ids under which something is kept."""
        return set(await self._kit.reading.read_transfers(0, ids))

    async def rewind(self) -> None:
        """Back to the first business date, which only a test may do."""
        async with self._kit.pool.acquire() as connection:
            await connection.execute("UPDATE business_dates SET business_date = $1", BASE_DATE)
            await connection.execute("DELETE FROM business_date_changes")
