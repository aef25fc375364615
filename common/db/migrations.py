"""Numbered SQL files, applied once to each schema, however many processes start at once.

`0001_accounts.sql`; `0002_pre_add_column.sql` runs before the new version is rolled out and
`0003_post_drop_column.sql` after it, for what old and new code cannot share. A file is history once
it is applied: its checksum is kept, and a changed file stops the process. An applied file that is
no longer there is no error, because an older version must be able to start on a newer schema.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import logging
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from common.db.pool import SessionSettings, connect
from common.db.types import Connection

COMMON_FOLDER: Final = Path(__file__).resolve().parents[1] / "migrations"
"""Tables that every service has: outbox, inbox, jobs, history, audit."""

_FILE_FORM: Final = re.compile(r"^(\d{4})_(?:(pre|post)_)?([a-z][a-z0-9_]*)\.sql$")
# First line of a file whose one statement must not run in a transaction (an index made while the
# table is in use).
_NO_TRANSACTION: Final = "-- outside a transaction"
_LOCK_POLL_SECONDS: Final = 0.1
# A statement that waits for a table's lock makes everyone behind it wait too, so it gives up soon
# and tries again.
_TABLE_LOCK_TIMEOUT: Final = "2s"
_LOCK_TRIES: Final = 30

_log = logging.getLogger(__name__)


class Phase(enum.StrEnum):
    """When a migration runs in a rollout."""

    PRE = "pre"
    POST = "post"


ALL_PHASES: Final = frozenset(Phase)


class MigrationError(Exception):
    """The migrations of a schema cannot be applied; the message says which and why."""


@dataclass(frozen=True)
class Migration:
    """One file."""

    source: str
    """Whose it is: `common` or the service."""
    number: int
    phase: Phase
    path: Path
    script: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, without regard to the line ends of a checkout."""
        return hashlib.sha256(self.script.replace("\r\n", "\n").encode()).hexdigest()


def read_migrations(source: str, folder: Path) -> list[Migration]:
    """Read the migrations of a folder, in the order of their numbers.

    Raises:
        MigrationError: a file name of another form, or a number twice.
    """
    found: dict[int, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_FORM.match(path.name)
        if match is None:
            raise MigrationError(f"{path}: not of the form 0001_[pre_|post_]what.sql")
        number = int(match[1])
        if number in found:
            raise MigrationError(f"{path}: number {number} is {found[number].name} already")
        found[number] = Migration(
            source=source,
            number=number,
            phase=Phase(match[2] or Phase.PRE),
            path=path,
            script=path.read_text(encoding="utf-8"),
        )
    return [found[number] for number in sorted(found)]


async def migrate(
    url: str,
    schema: str,
    folders: Mapping[str, Path] | None = None,
    *,
    phases: Collection[Phase] = ALL_PHASES,
) -> list[str]:
    """Bring a schema up to date; return the names of the files applied now.

    The shared tables come first, then `folders` (source → folder), in the order given. The schema
    exists already (`common.db.roles.prepare_schema`), and `url` may create tables in it.

    Raises:
        MigrationError: a malformed folder, a file changed since it was applied, or SQL that fails;
            what was applied before it stays.
    """
    wanted = [
        migration
        for source, folder in {"common": COMMON_FOLDER, **(folders or {})}.items()
        for migration in read_migrations(source, folder)
        if migration.phase in phases
    ]
    settings = SessionSettings(
        schema=schema,
        application_name=f"paymesh migrate {schema}",
        statement_timeout_seconds=0,
        extra={"lock_timeout": _TABLE_LOCK_TIMEOUT},
    )
    connection = await connect(url, settings)
    try:
        async with _held_lock(connection, schema):
            return await _apply_missing(connection, wanted)
    finally:
        await connection.close()


@asynccontextmanager
async def _held_lock(connection: Connection, schema: str) -> AsyncIterator[None]:
    """Hold the schema's migration lock; it ends with the session.

    Polled, not waited for: a session that waits inside a statement holds a snapshot, and an index
    made concurrently by the lock's holder would wait for that snapshot, for ever.
    """
    key = int.from_bytes(hashlib.sha256(f"migrate {schema}".encode()).digest()[:8], signed=True)
    # Another process holds the lock, so there is no event to wait for.
    while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", key):  # noqa: ASYNC110
        await asyncio.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.fetchval("SELECT pg_advisory_unlock($1)", key)


async def _apply_missing(connection: Connection, wanted: Sequence[Migration]) -> list[str]:
    await connection.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_migrations (
            source text NOT NULL,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (source, name)
        )
        """
    )
    rows = await connection.fetch("SELECT source, name, checksum FROM schema_migrations")
    applied = {(row["source"], row["name"]): row["checksum"] for row in rows}
    for migration in wanted:
        checksum = applied.get((migration.source, migration.name), migration.checksum)
        if checksum != migration.checksum:
            raise MigrationError(
                f"{migration.path} was changed after it was applied: make a new file instead"
            )
    missing = [one for one in wanted if (one.source, one.name) not in applied]
    for migration in missing:
        await _apply(connection, migration)
    return [one.name for one in missing]


async def _apply(connection: Connection, migration: Migration) -> None:
    for tries_left in reversed(range(_LOCK_TRIES)):
        try:
            if migration.script.startswith(_NO_TRANSACTION):
                await connection.execute(migration.script)
                await _note(connection, migration)
            else:
                async with connection.transaction():
                    await connection.execute(migration.script)
                    await _note(connection, migration)
        except asyncpg.LockNotAvailableError as error:
            if tries_left == 0:
                raise MigrationError(f"{migration.path}: the table stays locked") from error
            _log.info("%s waits for a table's lock", migration.name)
            await asyncio.sleep(_LOCK_POLL_SECONDS)
        except asyncpg.PostgresError as error:
            place = _line_of(migration.script, getattr(error, "position", None))
            raise MigrationError(f"{migration.path}{place}: {error}") from error
        else:
            return


async def _note(connection: Connection, migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO schema_migrations (source, name, checksum) VALUES ($1, $2, $3)",
        migration.source,
        migration.name,
        migration.checksum,
    )


def _line_of(script: str, position: str | None) -> str:
    """The place of an error as `:line`, where the server gave one (a character, from 1)."""
    if position is None or not position.isdigit():
        return ""
    return f":{script.count(chr(10), 0, int(position) - 1) + 1}"
