"""History and audit rows are written once and never changed, and whoever changes them is seen."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest

from common.audit import (
    AuditEntry,
    RoleMissingError,
    add_audit,
    digest_of,
    find_break,
    require_role,
)
from common.context import ActorType, Principal
from common.db.history import HistoryRow, add_history, cause_of_request, list_history
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
OPERATOR = Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("approver",))


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[Pool]:
    url = await prepare_schema(database_url, "kept")
    await migrate(url, "kept")
    one = await open_pool(url, SessionSettings("kept"))
    yield one
    await one.close()


def change(version: int, story: str = "biz_1") -> HistoryRow:
    return HistoryRow(
        "order", "ord_1", version, f"S{version - 1}", f"S{version}", "USER:1", AT, story
    )


def entry(reason: str) -> AuditEntry:
    return AuditEntry(
        OPERATOR,
        "approver",
        "merchant.suspend",
        "merchant mer_1",
        reason,
        AT,
        digest_of({"a": 1}),
        digest_of(None),
    )


async def test_history_reads_back_as_written(pool: Pool) -> None:
    async with pool.transaction() as connection:
        await add_history(connection, [change(1), change(2)])
        await add_history(connection, [])
        assert await list_history(connection, "order", "ord_1") == [change(1), change(2)]


def test_a_cause_that_a_caller_numbered_is_named_by_its_digest() -> None:
    own = "evt_01m7zz3k2v000000000000000a"
    assert cause_of_request(own) == own
    told = cause_of_request("order of ada@example.org")
    assert told == f"sha256:{hashlib.sha256(b'order of ada@example.org').hexdigest()}"


async def test_a_second_change_from_the_same_version_is_refused(pool: Pool) -> None:
    with pytest.raises(asyncpg.UniqueViolationError):
        async with pool.transaction() as connection:
            await add_history(connection, [change(7), change(7, "biz_2")])


@pytest.mark.parametrize("table", ["history", "audit"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET actor = 'x'", "DELETE FROM {}", "TRUNCATE {}"])
async def test_changing_what_is_kept_is_refused(pool: Pool, table: str, verb: str) -> None:
    with pytest.raises(asyncpg.RestrictViolationError, match="append-only"):
        async with pool.acquire() as connection:
            await connection.execute(verb.format(table))


async def test_audit_entries_form_a_chain_however_many_write_at_once(pool: Pool) -> None:
    async def write(number: int) -> int:
        async with pool.transaction() as connection:
            return await add_audit(connection, entry(f"reason {number}"))

    positions = await asyncio.gather(*(write(number) for number in range(20)))
    assert sorted(positions) == list(range(1, 21))
    async with pool.acquire() as connection:
        assert await find_break(connection) is None


async def test_changing_an_audit_entry_behind_the_trigger_is_seen(pool: Pool) -> None:
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the block is the case
        async with pool.transaction() as connection:
            await add_audit(connection, entry("honest"))
            assert await find_break(connection) is None
            await connection.execute("ALTER TABLE audit DISABLE TRIGGER audit_is_append_only")
            await connection.execute("UPDATE audit SET reason = 'forged' WHERE position = 1")
            assert await find_break(connection) == 1
            await connection.execute("DELETE FROM audit WHERE position = 1")
            assert await find_break(connection) == 1
            raise ZeroDivisionError


def test_requiring_a_role_that_is_missing_is_refused() -> None:
    assert require_role(OPERATOR, "approver") == "approver"
    with pytest.raises(RoleMissingError, match="operator"):
        require_role(OPERATOR, "operator")


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
    assert digest_of(None) == ""
