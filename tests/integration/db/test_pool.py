"""Pools give sessions that behave, and say of every failure what it means."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from common.db.failures import Failure, classify, is_about_values, is_away
from common.db.pool import Pool, SessionSettings, open_pool
from tests.conftest import StartServers

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    one = await open_pool(
        database_url, SessionSettings("public", statement_timeout_seconds=0.5), connections_max=4
    )
    async with one.acquire() as connection:
        await connection.execute(
            "CREATE TABLE things (id int PRIMARY KEY, size int CHECK (size > 0), doc jsonb)"
        )
    yield one
    await one.close()


async def test_writing_jsonb_gives_it_back_as_values(pool: Pool) -> None:
    doc = {"a": [1, "zwei", None, True], "b": {"c": 1.5}}
    async with pool.transaction() as connection:
        await connection.execute("INSERT INTO things VALUES (1, 1, $1)", doc)
        assert await connection.fetchval("SELECT doc FROM things WHERE id = 1") == doc
        many = await connection.fetch(
            "SELECT doc FROM unnest($1::jsonb[]) AS one(doc)", [doc, {"x": 1}]
        )
    assert [row["doc"] for row in many] == [doc, {"x": 1}]


async def test_failing_inside_a_transaction_undoes_it(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is the case
        async with pool.transaction() as connection:
            await connection.execute("INSERT INTO things VALUES (100, 1)")
            raise ZeroDivisionError
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM things WHERE id = 100") == 0


async def test_a_constraint_or_datum_at_fault_splits_the_batch(pool: Pool) -> None:
    for statement in (
        "INSERT INTO things VALUES (2, 1), (2, 1)",
        "INSERT INTO things VALUES (3, 0)",
        "SELECT 1 / 0",
        "SELECT nonsense",
        "INSERT INTO things VALUES (99999999999, 1)",
    ):
        with pytest.raises(asyncpg.PostgresError) as caught:
            async with pool.acquire() as connection:
                await connection.execute(statement)
        assert classify(caught.value) is Failure.SPLIT, statement
    with pytest.raises(asyncpg.DataError) as wrong:
        async with pool.acquire() as connection:
            await connection.execute("INSERT INTO things VALUES ($1, 1)", "text")
    assert classify(wrong.value) is Failure.SPLIT
    assert is_about_values(wrong.value)
    assert not is_away(wrong.value)


async def test_a_session_in_disorder_is_not_the_batchs_fault(pool: Pool) -> None:
    """While a server dies, sessions are found in the middle of operations that nobody awaits."""
    async with pool.acquire() as connection:
        under_way = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises(asyncpg.InterfaceError, match="another operation") as busy:
            await connection.execute("SELECT 1")
        await under_way
    disorder = asyncpg.InternalClientError(
        "cannot switch to state 15; another operation (2) is in progress"
    )
    for error in (busy.value, disorder):
        assert classify(error) is Failure.READ_BACK
        assert is_away(error)
        assert not is_about_values(error)


async def test_a_deadlock_retries_the_whole_batch(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO things VALUES (10, 1), (11, 1)")
    both = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> object:
        try:
            async with pool.transaction() as connection:
                await connection.execute("SET LOCAL statement_timeout = 0")
                await connection.execute("UPDATE things SET size = 2 WHERE id = $1", first)
                await both.wait()
                await connection.execute("UPDATE things SET size = 2 WHERE id = $1", second)
        except asyncpg.PostgresError as error:
            return error
        return None

    failures = [one for one in await asyncio.gather(lock(10, 11), lock(11, 10)) if one]
    assert [classify(one) for one in failures if isinstance(one, Exception)] == [
        Failure.RETRY_WHOLE
    ]


async def test_a_conflict_of_serialisable_transactions_retries_the_whole_batch(pool: Pool) -> None:
    async with pool.acquire() as connection:
        await connection.execute("INSERT INTO things VALUES (20, 1)")
    with pytest.raises(asyncpg.SerializationError) as caught:  # noqa: PT012 - the block is the case
        async with pool.transaction(isolation="repeatable_read") as one:
            await one.fetch("SELECT id FROM things")
            async with pool.acquire() as other:
                await other.execute("UPDATE things SET size = 5 WHERE id = 20")
            await one.execute("UPDATE things SET size = 6 WHERE id = 20")
    assert classify(caught.value) is Failure.RETRY_WHOLE


async def test_a_slow_statement_is_cut_off(pool: Pool) -> None:
    with pytest.raises(asyncpg.QueryCanceledError) as caught:
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_sleep(5)")
    assert classify(caught.value) is Failure.RETRY_WHOLE


async def test_a_killed_session_reads_back_and_the_pool_goes_on(
    pool: Pool, database_url: str
) -> None:
    killer = await asyncpg.connect(database_url)
    with pytest.raises(LOST) as caught:  # noqa: PT012 - the block is the case
        async with pool.transaction() as connection:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.execute("SELECT 1")
            await connection.execute("SELECT 1")
    await killer.close()
    assert classify(caught.value) is Failure.READ_BACK
    assert is_away(caught.value)
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_killed_server_reads_back_and_comes_back(start_servers: StartServers) -> None:
    servers = await start_servers("postgres")
    pool = await open_pool(servers.postgres_url, SessionSettings("public"))
    sleeper = asyncio.create_task(_sleep_in(pool))
    async with asyncio.timeout(10):
        while pool.connections()[1] == pool.connections()[0]:  # noqa: ASYNC110 - until it is lent
            await asyncio.sleep(0.01)
    await servers.kill("postgres")
    lost = await sleeper
    assert lost is not None
    assert classify(lost) is Failure.READ_BACK
    with pytest.raises(LOST) as refused:
        async with pool.acquire() as connection:
            await connection.fetchval("SELECT 1")
    assert is_away(refused.value)
    await servers.restart("postgres")
    async with pool.acquire() as connection:
        assert await connection.fetchval("SELECT 1") == 1
    await pool.close()


async def test_a_server_that_stands_still_holds_nobody_for_good(
    start_servers: StartServers,
) -> None:
    """Not a statement, not a caller that gives up, not the connection that it had."""
    servers = await start_servers("postgres")
    settings = SessionSettings("public", statement_timeout_seconds=0.5)
    pool = await open_pool(servers.postgres_url, settings, connections_min=2, connections_max=2)
    async with pool.acquire() as first, pool.acquire() as second:
        assert await first.fetchval("SELECT 1") == await second.fetchval("SELECT 1")
    await servers.pause("postgres")
    asked = [asyncio.create_task(_ask(pool)) for _ in range(2)]
    async with asyncio.timeout(10):
        while pool.connections()[1]:  # noqa: ASYNC110 - until both are lent
            await asyncio.sleep(0.01)
    asked[1].cancel()
    async with asyncio.timeout(30):
        lost, given_up = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(lost, BaseException)
    assert isinstance(given_up, BaseException)
    assert classify(lost) is Failure.READ_BACK
    assert is_away(lost)
    await servers.resume("postgres")
    async with asyncio.timeout(30):
        assert await _ask(pool) == 1
    await pool.close()


async def _ask(pool: Pool) -> object:
    async with pool.transaction() as connection:
        return await connection.fetchval("SELECT 1")


async def _sleep_in(pool: Pool) -> BaseException | None:
    try:
        async with pool.acquire() as connection:
            await connection.execute("SELECT pg_sleep(9)")
    except LOST as error:
        return error
    return None


def test_other_exceptions_are_not_the_databases() -> None:
    assert classify(ValueError("no")) is None
    assert not is_away(ValueError("no"))
