"""`paymesh migrate`, as the Job of a rollout runs it: all schemas, again, and one at a time."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

import asyncpg

from services.cli.sources import SERVICES
from tests.deploy.manifests import ROOT

WITH_TABLES = set(SERVICES) - {"sandbox"}


async def _migrate(database_url: str, *names: str) -> tuple[int, str]:
    """Run the command as a program; return its status and what it said."""
    own = {f"PAYMESH_{service.upper()}_POSTGRES_URL": database_url for service in WITH_TABLES}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "paymesh",
        "migrate",
        *names,
        cwd=ROOT,
        # Nothing but the addresses that the manifest gives.
        env={"PATH": os.environ["PATH"], **own},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def _schemas(database_url: str) -> set[str]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT schemaname FROM pg_tables WHERE tablename = 'schema_migrations'"
        )
    finally:
        await connection.close()
    return {row["schemaname"] for row in rows}


async def test_migrating_makes_every_schema_once(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    database_url = await new_database()
    # Two at once, as a Job that is repeated beside a starting pod.
    done = await asyncio.gather(_migrate(database_url), _migrate(database_url))
    assert [status for status, _ in done] == [0, 0], done
    assert await _schemas(database_url) == WITH_TABLES
    status, said = await _migrate(database_url)
    assert status == 0
    assert "applied" not in said


async def test_migrating_one_service_leaves_the_others(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    database_url = await new_database()
    status, said = await _migrate(database_url, "routing")
    assert status == 0, said
    assert await _schemas(database_url) == {"routing"}


async def test_migrating_an_unknown_service_names_those_there_are(
    new_database: Callable[[], Awaitable[str]],
) -> None:
    database_url = await new_database()
    status, said = await _migrate(database_url, "nonsense")
    assert status == 1
    assert "there is no service nonsense" in said
    assert not await _schemas(database_url)
