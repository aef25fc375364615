"""Schemas are private to their service, set up by any number of processes at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from common.db.migrations import MigrationError, Phase, migrate, read_migrations
from common.db.pool import SessionSettings, open_pool
from common.db.roles import SchemaNameError, prepare_schema, role_url


def write(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(script)


async def test_preparing_at_once_makes_one_schema_with_its_own_role(database_url: str) -> None:
    urls = await asyncio.gather(*(prepare_schema(database_url, "alpha") for _ in range(6)))
    assert set(urls) == {role_url(database_url, "alpha")}
    pool = await open_pool(urls[0], SessionSettings("alpha"))
    async with pool.acquire() as connection:
        row = await connection.fetchrow(
            "SELECT current_user AS role, current_schema() AS schema, "
            "current_setting('jit') AS jit, current_setting('TimeZone') AS zone"
        )
    await pool.close()
    assert row is not None
    assert tuple(row) == ("paymesh_alpha", "alpha", "off", "UTC")


async def test_reading_anothers_schema_is_refused(database_url: str) -> None:
    mine = await prepare_schema(database_url, "mine")
    other = await prepare_schema(database_url, "other")
    owner = await asyncpg.connect(mine)
    reader = await asyncpg.connect(other)
    try:
        await owner.execute("CREATE TABLE mine.secrets (id int)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.fetch("SELECT id FROM mine.secrets")
    finally:
        await owner.close()
        await reader.close()


async def test_preparing_without_the_right_to_make_roles_uses_the_role_itself(
    database_url: str,
) -> None:
    """An installer may give one plain role that owns the database, and nothing more."""
    admin = await asyncpg.connect(database_url)
    name = await admin.fetchval("SELECT current_database()")
    role = f"plain_{name}"
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
        await admin.execute(f"GRANT CREATE ON DATABASE {name} TO {role}")
        host = urlsplit(database_url).netloc.rpartition("@")[2]
        plain = urlunsplit(urlsplit(database_url)._replace(netloc=f"{role}:x@{host}"))
        assert await prepare_schema(plain, "gamma") == plain
        assert await prepare_schema(plain, "gamma") == plain
        await migrate(plain, "gamma")
    finally:
        await admin.execute(f"DROP OWNED BY {role} CASCADE")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


async def test_preparing_with_a_role_that_may_only_make_roles_separates_services(
    database_url: str,
) -> None:
    admin = await asyncpg.connect(database_url)
    name = await admin.fetchval("SELECT current_database()")
    role, schema = f"maker_{name}", f"made_{name}"
    try:
        await admin.execute(f"CREATE ROLE {role} LOGIN CREATEROLE PASSWORD 'x'")
        await admin.execute(f"GRANT ALL ON DATABASE {name} TO {role} WITH GRANT OPTION")
        host = urlsplit(database_url).netloc.rpartition("@")[2]
        maker = urlunsplit(urlsplit(database_url)._replace(netloc=f"{role}:x@{host}"))
        url = await prepare_schema(maker, schema)
        assert urlsplit(url).username == f"paymesh_{schema}"
        await migrate(url, schema)
    finally:
        await admin.execute(f"DROP OWNED BY {role} CASCADE")
        await admin.execute(f"DROP OWNED BY paymesh_{schema} CASCADE")
        await admin.execute(f"DROP ROLE paymesh_{schema}")
        await admin.execute(f"DROP ROLE {role}")
        await admin.close()


async def test_preparing_heals_a_password_that_was_changed(database_url: str) -> None:
    admin = await asyncpg.connect(database_url)
    name = await admin.fetchval("SELECT current_database()")
    schema = f"healed_{name}"
    try:
        url = await prepare_schema(database_url, schema)
        await admin.execute(f"ALTER ROLE paymesh_{schema} PASSWORD 'another'")
        assert await prepare_schema(database_url, schema) == url
        await (await asyncpg.connect(url)).close()
    finally:
        await admin.execute(f"DROP OWNED BY paymesh_{schema} CASCADE")
        await admin.execute(f"DROP ROLE paymesh_{schema}")
        await admin.close()


@pytest.mark.parametrize("schema", ["", "Upper", "a-b", 'a"; DROP ROLE x; --', "x" * 41])
async def test_preparing_a_schema_of_a_wrong_name_is_refused(
    database_url: str, schema: str
) -> None:
    with pytest.raises(SchemaNameError):
        await prepare_schema(database_url, schema)


async def test_migrating_at_once_applies_each_file_once(database_url: str, tmp_path: Path) -> None:
    """Twelve processes start together; the table's creation would fail if run twice."""
    folder = tmp_path / "racing"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int); SELECT pg_sleep(0.2);")
    write(folder, "0002_more.sql", "ALTER TABLE things ADD COLUMN name text;")
    url = await prepare_schema(database_url, "racing")
    applied = await asyncio.gather(*(migrate(url, "racing", {"racing": folder}) for _ in range(12)))
    assert sorted(len(names) for names in applied)[:11] == [0] * 11
    assert max(applied, key=len)[-2:] == ["0001_things.sql", "0002_more.sql"]


async def test_migrating_with_a_changed_file_is_refused(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int);")
    url = await prepare_schema(database_url, "changed")
    await migrate(url, "changed", {"changed": folder})
    write(folder, "0001_things.sql", "CREATE TABLE things (id bigint);")
    with pytest.raises(MigrationError, match="changed after it was applied"):
        await migrate(url, "changed", {"changed": folder})


async def test_migrating_with_wrong_sql_names_the_line_and_keeps_what_went_before(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "wrong"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int);")
    write(folder, "0002_wrong.sql", "CREATE TABLE others (id int);\n\nCREATE TABEL oops ();")
    url = await prepare_schema(database_url, "wrong")
    with pytest.raises(MigrationError, match=r"0002_wrong\.sql:3: syntax error"):
        await migrate(url, "wrong", {"wrong": folder})
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT to_regclass('wrong.things') IS NOT NULL")
    assert await connection.fetchval("SELECT to_regclass('wrong.others') IS NULL")
    await connection.close()
    write(folder, "0002_wrong.sql", "CREATE TABLE others (id int);")
    assert await migrate(url, "wrong", {"wrong": folder}) == ["0002_wrong.sql"]


async def test_migrating_in_phases_leaves_the_post_files_for_later(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "phased"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int, old int);")
    write(folder, "0002_post_drop_old.sql", "ALTER TABLE things DROP COLUMN old;")
    write(folder, "0003_pre_add_new.sql", "ALTER TABLE things ADD COLUMN new int;")
    url = await prepare_schema(database_url, "phased")
    first = await migrate(url, "phased", {"phased": folder}, phases={Phase.PRE})
    assert first[-2:] == ["0001_things.sql", "0003_pre_add_new.sql"]
    assert await migrate(url, "phased", {"phased": folder}) == ["0002_post_drop_old.sql"]


async def test_migrating_an_index_outside_a_transaction_does_not_hang_beside_others(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "indexed"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int);")
    write(
        folder,
        "0002_index.sql",
        "-- outside a transaction\nCREATE INDEX CONCURRENTLY things_id ON things (id);",
    )
    url = await prepare_schema(database_url, "indexed")
    async with asyncio.timeout(30):
        await asyncio.gather(*(migrate(url, "indexed", {"indexed": folder}) for _ in range(4)))


async def test_migrating_waits_for_a_locked_table_without_blocking_it(
    database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "locked"
    write(folder, "0001_things.sql", "CREATE TABLE things (id int);")
    url = await prepare_schema(database_url, "locked")
    await migrate(url, "locked", {"locked": folder})
    write(folder, "0002_more.sql", "ALTER TABLE things ADD COLUMN name text;")
    holder = await asyncpg.connect(url)
    held = holder.transaction()
    await held.start()
    await holder.execute("INSERT INTO locked.things VALUES (1)")
    migration = asyncio.create_task(migrate(url, "locked", {"locked": folder}))
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $1::regclass"
    watcher = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        while not await watcher.fetchval(waiting, "locked.things"):  # noqa: ASYNC110 - another's
            await asyncio.sleep(0.02)
    await held.rollback()
    assert await migration == ["0002_more.sql"]
    await holder.close()
    await watcher.close()


def test_reading_a_malformed_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "1_things.sql", "")
    with pytest.raises(MigrationError, match="not of the form"):
        read_migrations("a", tmp_path / "a")
    write(tmp_path / "b", "0001_things.sql", "")
    write(tmp_path / "b", "0001_others.sql", "")
    with pytest.raises(MigrationError, match="number 1"):
        read_migrations("b", tmp_path / "b")
