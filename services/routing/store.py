"""Versions of the rules in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from common.audit import AuditEntry, add_audit, digest_of
from common.context import CallContext
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Record
from services.routing.domain import ChannelRule, RuleSet

_SQL: Final = load_queries("services.routing")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    """Rules to be put in force, by whom and why."""

    request_id: str
    rules: tuple[ChannelRule, ...]
    expected_version: int
    reason: str
    call: CallContext
    at: datetime
    role: str = ""
    """The role that allowed it; empty for the installation's first rules."""


class RuleStore:
    """Reads and writes of the schema `routing`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find_current(self) -> RuleSet | None:
        """Return the rules in force; None when there are none yet."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_SQL["find_current"])
        return None if row is None else _rule_set(row)

    async def find_current_version(self) -> int:
        """Return the number of the rules in force; 0 when there are none yet."""
        async with self._pool.acquire() as connection:
            return int(await connection.fetchval(_SQL["find_current_version"]))

    async def find_by_request(self, call: CallContext, request_id: str) -> RuleSet | None:
        """Return the version that a request made before."""
        principal = call.principal
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _SQL["find_by_request"], principal.tenant_id, str(principal.mode), request_id
            )
        return None if row is None else _rule_set(row)

    async def add(self, new: NewVersion) -> bool:
        """Add the version after the expected one; False when it is not the last any more."""
        principal = new.call.principal
        rules = [rule_to_json(rule) for rule in new.rules]
        async with self._pool.transaction() as connection:
            before = await connection.fetchrow(_SQL["find_current"])
            if (0 if before is None else before["version"]) != new.expected_version:
                return False
            added = await connection.fetchval(
                _SQL["insert_version"],
                new.expected_version + 1,
                principal.tenant_id,
                str(principal.mode),
                principal.actor,
                new.request_id,
                rules,
                new.reason,
                new.call.biz_trace_id,
                new.at,
            )
            if added is None:
                return False
            await add_audit(
                connection,
                AuditEntry(
                    principal=principal,
                    role=new.role,
                    action="routing.put_rules",
                    subject=f"rules {added}",
                    reason=new.reason,
                    at=new.at,
                    before_digest=digest_of(None if before is None else before["rules"]),
                    after_digest=digest_of(rules),
                    biz_trace_id=new.call.biz_trace_id,
                ),
            )
        return True


def rule_to_json(rule: ChannelRule) -> dict[str, Any]:
    """Return a rule as the row keeps it."""
    return asdict(rule) | {"currency_codes": list(rule.currency_codes)}


def rules_from_json(values: Sequence[dict[str, Any]]) -> tuple[ChannelRule, ...]:
    """Return the rules of a row or of the file; raises TypeError for other keys."""
    return tuple(
        ChannelRule(**(value | {"currency_codes": tuple(value["currency_codes"])}))
        for value in values
    )


def _rule_set(row: Record) -> RuleSet:
    return RuleSet(row["version"], rules_from_json(row["rules"]))
