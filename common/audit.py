"""The audit log: what people did, append-only, each row sealed by the digest of the one before.

A trigger refuses changes; whoever gets around it (the owner of the table can) breaks the chain,
which `find_break` shows. Only for actions of people: the chain is lengthened one at a time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from common.context import Principal
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.errors import PermissionDeniedError

_QUERIES: Final = load_queries("common.db")
_FIRST_LINK: Final = b"\x00" * 32
_ROWS_PER_READ: Final = 1000
_SEALED: Final = (
    "position",
    "at",
    "tenant_id",
    "mode",
    "actor",
    "on_behalf_of",
    "role",
    "action",
    "subject",
    "before_digest",
    "after_digest",
    "reason",
    "biz_trace_id",
)


class RoleMissingError(PermissionDeniedError):
    """The actor has not the role {role} that this needs."""


def require_role(principal: Principal, role: str) -> str:
    """Return `role` when the actor has it; raises RoleMissingError."""
    if role not in principal.roles:
        raise RoleMissingError(role=role)
    return role


def digest_of(state: object) -> str:
    """Return a digest of a subject's state (JSON values), for before and after; '' for None."""
    if state is None:
        return ""
    return hashlib.sha256(orjson.dumps(state, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One action of one person."""

    principal: Principal
    """Who did it."""
    role: str
    """The role that allowed it."""
    action: str
    """What: `merchant.suspend`."""
    subject: str
    """To what: `merchant mer_01…`."""
    reason: str
    """Why, in the person's words."""
    at: datetime
    """When, by the service's clock (aware)."""
    before_digest: str = ""
    after_digest: str = ""
    biz_trace_id: str = ""


async def add_audit(connection: Connection, entry: AuditEntry) -> int:
    """Write an entry in the caller's open transaction; return its position.

    Others that write one wait until the transaction ends.
    """
    await connection.execute(_QUERIES["lock_audit"])
    last = await connection.fetchrow(_QUERIES["find_last_audit"])
    position = 1 if last is None else last["position"] + 1
    previous = _FIRST_LINK if last is None else bytes(last["link"])
    principal = entry.principal
    values: dict[str, Any] = {
        "position": position,
        "at": entry.at,
        "tenant_id": principal.tenant_id,
        "mode": str(principal.mode),
        "actor": principal.actor,
        "on_behalf_of": principal.on_behalf_of,
        "role": entry.role,
        "action": entry.action,
        "subject": entry.subject,
        "before_digest": entry.before_digest,
        "after_digest": entry.after_digest,
        "reason": entry.reason,
        "biz_trace_id": entry.biz_trace_id,
    }
    await connection.execute(
        _QUERIES["add_audit"],
        *(values[name] for name in _SEALED),
        previous,
        _seal(previous, values),
    )
    return position


async def find_break(connection: Connection) -> int | None:
    """Return the position of the first entry that is missing or was changed; None when all hold.

    What was cut off at the end cannot be seen from the chain itself: compare with a position and
    link that were kept elsewhere.
    """
    position, previous = 0, _FIRST_LINK
    while True:
        rows: list[Record] = await connection.fetch(
            _QUERIES["read_audit"], position, _ROWS_PER_READ
        )
        for row in rows:
            values = {name: row[name] for name in _SEALED}
            if (
                row["position"] != position + 1
                or bytes(row["previous_link"]) != previous
                or bytes(row["link"]) != _seal(previous, values)
            ):
                return position + 1
            position, previous = row["position"], bytes(row["link"])
        if len(rows) < _ROWS_PER_READ:
            return None


def _seal(previous: bytes, values: dict[str, Any]) -> bytes:
    # The database keeps microseconds, as Python does, so the instant reads back the same.
    at = values["at"].astimezone(UTC).isoformat()
    content = orjson.dumps([at if name == "at" else values[name] for name in _SEALED])
    return hashlib.sha256(previous + content).digest()
