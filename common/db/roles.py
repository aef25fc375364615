"""A schema and a role of its own for each service, so that no service can read another's rows.

The role's password is derived from that of the configured address: every process that knows the
address finds it by itself, and nothing more has to be kept or handed round. Where the address's own
role may not make roles (or has no password to derive one from), it is used for the schema itself,
and separation is the installer's affair.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import asyncpg

_SCHEMA_FORM: Final = re.compile(r"^[a-z][a-z0-9_]{0,39}$")
# Roles belong to the whole server, which several databases may be set up on at once.
_TRIES: Final = 20
_RETRY_SECONDS: Final = 0.1


class SchemaNameError(ValueError):
    """A schema is named as no service can be."""


def role_of(schema: str) -> str:
    """Return the name of the role that owns `schema`."""
    return f"paymesh_{schema}"


def role_url(url: str, schema: str) -> str:
    """Return `url` with the role of `schema` in place of its own."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = quote(role_of(schema), safe="")
    password = _derive_password(unquote(parts.password or ""), schema)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{host}"))


async def prepare_schema(url: str, schema: str) -> str:
    """Make the schema and its role where they are missing; return the address to work under.

    Safe when several processes do it at once. The address is that of the schema's own role, or
    `url` itself when it may not make roles.

    Raises:
        SchemaNameError: `schema` is no lower-case identifier.
        asyncpg.PostgresError: the role of `url` may neither make a role nor the schema.
    """
    if not _SCHEMA_FORM.match(schema):
        raise SchemaNameError(f"{schema!r} is no name of a schema")
    connection = await asyncpg.connect(url)
    try:
        own_role = await _make_role(connection, url, schema)
        await _make_schema(connection, schema, role_of(schema) if own_role else None)
    finally:
        await connection.close()
    return role_url(url, schema) if own_role else url


async def _make_role(connection: Any, url: str, schema: str) -> bool:
    """Make the role, or set its password right; return whether it can be worked under."""
    role = role_of(schema)
    if not urlsplit(url).password:
        return False
    if await _can_log_in(role_url(url, schema)):
        return True
    if not await connection.fetchval(
        "SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ):
        return False
    password = _derive_password(unquote(urlsplit(url).password or ""), schema)
    for tries_left in reversed(range(_TRIES)):
        try:
            exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
            verb = "ALTER" if exists else "CREATE"
            # Neither name nor password can hold a quote: see _SCHEMA_FORM and the hexadecimal.
            await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD '{password}'")
            # Who is not a superuser needs to be a member to give a schema away.
            await connection.execute(f"GRANT {role} TO CURRENT_USER")
            break
        except asyncpg.InsufficientPrivilegeError:
            return False
        except (
            asyncpg.DuplicateObjectError,
            asyncpg.UniqueViolationError,
            asyncpg.InternalServerError,  # "tuple concurrently updated": another does the same
        ):
            if tries_left == 0:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
    return True


async def _make_schema(connection: Any, schema: str, owner: str | None) -> None:
    if await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema):
        return
    database = await connection.fetchval("SELECT quote_ident(current_database())")
    authorization = "" if owner is None else f" AUTHORIZATION {owner}"
    for tries_left in reversed(range(_TRIES)):
        try:
            if owner is not None:
                await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {owner}")
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}{authorization}")
        except (asyncpg.UniqueViolationError, asyncpg.InternalServerError):
            if tries_left == 0:
                raise
            await asyncio.sleep(_RETRY_SECONDS)
        else:
            return


async def _can_log_in(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=10)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError):
        return False
    except asyncpg.InsufficientPrivilegeError:
        return False
    await connection.close()
    return True


def _derive_password(secret: str, schema: str) -> str:
    digest = hmac.new(secret.encode(), f"paymesh role {schema}".encode(), hashlib.sha256)
    return digest.hexdigest()
