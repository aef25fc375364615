"""What the model promises beside the rows: whole transactions, told before and after, run alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import asyncpg
import pytest

from common.clock import SystemClock
from common.context import Principal
from common.db.history import HistoryRow, add_history, list_history
from common.db.types import Connection
from common.errors import PaymeshError
from common.ids import IdFactory
from common.jobs.job import NewJob
from common.jobs.jobs import Jobs
from services.account.chart_files import read_chart
from services.account.domain.accounts import AccountSpec
from services.account.flows.cut_day import open_book
from services.account.flows.open_accounts import open_accounts
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore
from tests.conformance.stores.ledger_cases import FIRST_DAY, LedgerSide
from tests.conformance.stores.twins import ModelSide
from tests.model_stores.connection import ModelError
from tests.model_stores.database import ModelDatabase, Moment

IDS = IdFactory(SystemClock())


@dataclass
class Steps:
    """Notes every step; fails at one when told to."""

    seen: list[tuple[str, Moment]] = field(default_factory=list)
    fail_at: tuple[str, Moment] | None = None

    async def __call__(self, statement: str, moment: Moment) -> None:
        """Note a step."""
        self.seen.append((statement, moment))
        if self.fail_at == (statement, moment):
            self.fail_at = None
            raise ConnectionError("connection lost")


@pytest.fixture
def steps() -> Steps:
    """What gets in between."""
    return Steps()


@pytest.fixture
def database(steps: Steps) -> ModelDatabase:
    """An empty model."""
    return ModelDatabase(SystemClock(), steps)


def change(version: int) -> HistoryRow:
    return HistoryRow("order", "trd_1", version, "", "CREATED", "USER:u", SystemClock().now())


async def count(database: ModelDatabase) -> int:
    async with database.pool("trade").acquire() as connection:
        return len(await list_history(connection, "order", "trd_1"))


async def test_a_transaction_that_raises_leaves_nothing(database: ModelDatabase) -> None:
    async def write_and_stop() -> None:
        async with database.pool("trade").transaction() as connection:
            await add_history(connection, [change(1)])
            raise OSError("stop")

    with pytest.raises(OSError, match="stop"):
        await write_and_stop()
    assert await count(database) == 0


async def test_a_failed_statement_fails_the_rest_of_its_transaction(
    database: ModelDatabase,
) -> None:
    async def go_on_after_a_failure() -> None:
        async with database.pool("trade").transaction() as connection:
            await add_history(connection, [change(1)])
            with pytest.raises(asyncpg.UniqueViolationError):
                await add_history(connection, [change(1)])
            await add_history(connection, [change(2)])

    with pytest.raises(asyncpg.InFailedSQLTransactionError):
        await go_on_after_a_failure()
    assert await count(database) == 0


async def test_steps_surround_a_transaction_and_are_called_by_its_first_statement(
    database: ModelDatabase, steps: Steps
) -> None:
    pool = database.pool("trade")
    async with pool.transaction() as connection:
        await add_history(connection, [change(1)])
        await Jobs().cancel(connection, "kind", ["key"])
        assert steps.seen == [("trade.add_history", "before")]
    assert steps.seen == [("trade.add_history", "before"), ("trade.add_history", "after")]


@pytest.mark.parametrize(("moment", "written"), [("before", 0), ("after", 1)])
async def test_a_connection_lost_at_a_step_loses_what_its_moment_says(
    database: ModelDatabase, steps: Steps, moment: Moment, written: int
) -> None:
    steps.fail_at = ("trade.add_history", moment)
    with pytest.raises(ConnectionError):
        async with database.pool("trade").transaction() as connection:
            await add_history(connection, [change(1)])
    assert await count(database) == written


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_ledger_answers_the_same_after_a_lost_connection(
    database: ModelDatabase, steps: Steps, moment: Moment
) -> None:
    ledger = LedgerSide(ModelSide("model", "account", database.pool("account")))
    await ledger.begin()
    steps.fail_at = ("account.lock_accounts", moment)
    answers = await ledger.ledger.post([ledger.move(1, "R", "A", 10)])
    assert [answer.status for answer in answers] == ["BOOKED"]
    accounts = await ledger.accounts.read(0, [ledger.account_id("A")])
    assert accounts[ledger.account_id("A")].balance_minor == 10


async def test_a_transaction_that_waits_for_something_else_is_found(
    database: ModelDatabase,
) -> None:
    pool = database.pool("trade")
    is_open, may_end = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with pool.transaction() as connection:
            await add_history(connection, [change(1)])
            is_open.set()
            await may_end.wait()

    task = asyncio.create_task(hold())
    await is_open.wait()
    with pytest.raises(ModelError, match="waited"):
        await count(database)
    may_end.set()
    await task
    assert await count(database) == 1


async def test_a_transaction_cancelled_before_its_turn_has_done_nothing(
    steps: Steps,
) -> None:
    may_go = asyncio.Event()

    async def wait(_: str, moment: Moment) -> None:
        if moment == "before":
            await may_go.wait()

    database = ModelDatabase(SystemClock(), wait)

    async def write(connection: Connection) -> None:
        await add_history(connection, [change(1)])

    async def run() -> None:
        async with database.pool("trade").transaction() as connection:
            await write(connection)

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_go.set()
    assert await count(database) == 0


async def test_rows_outlive_the_pools_and_nobody_changes_them_from_outside(
    database: ModelDatabase,
) -> None:
    payload = {"ids": ["a"]}
    job = NewJob(IDS.new("job"), "ask", "key", SystemClock().now(), Principal(), payload=payload)
    async with database.pool("trade").transaction() as connection:
        await Jobs().add(connection, [job])
    payload["ids"].append("b")
    first = database.pool("trade").model.dump("jobs")
    first[0]["payload"]["ids"].append("c")
    assert database.pool("trade").model.dump("jobs")[0]["payload"] == {"ids": ["a"]}


async def test_schemas_do_not_share_rows(database: ModelDatabase) -> None:
    async with database.pool("account").transaction() as connection:
        await add_history(connection, [change(1)])
    assert await count(database) == 0


async def test_a_refused_call_of_a_flow_leaves_the_model_as_it_was(
    database: ModelDatabase,
) -> None:
    pool = database.pool("account")
    accounts = AccountStore(pool, read_chart().kinds)
    await open_book(pool, DayStore(pool), 0, FIRST_DAY, "test")
    one = AccountSpec(IDS.new("acc"), "o", "user_available", "USD")
    await open_accounts(pool, accounts, [one])
    other = AccountSpec(IDS.new("acc"), "o", "user_available", "USD")
    differing = AccountSpec(one.id, "p", "user_available", "USD")
    with pytest.raises(PaymeshError):
        await open_accounts(pool, accounts, [other, differing])
    assert [row["id"] for row in pool.model.dump("accounts")] == [one.id]
