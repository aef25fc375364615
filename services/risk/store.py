"""Rules, decisions and resolutions in PostgreSQL: batches on the hot path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from common.money import Money
from services.risk.domain import Action, Decision, Verdict

_SQL: Final = load_queries("services.risk")

FACT_QUERIES: Final = {"decision": "list_decision_facts", "unfinished": "list_unfinished"}
"""Kinds of facts, and the queries that list them."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The decision under an action's id."""

    decision: Decision
    is_new: bool
    """Kept by this call; otherwise it is the first one, whatever this call came to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What became of an action."""

    action_id: str
    confirmed: bool
    tenant_id: str
    mode: str
    biz_trace_id: str = ""
    cause: str = ""


class RiskStore:
    """Reads and writes of the schema `risk`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # Decisions.

    async def keep_decisions(self, decisions: Sequence[Decision]) -> list[Kept]:
        """Keep verdicts; the first one of an action stays for ever."""
        ordered = sorted(decisions, key=lambda one: one.action.action_id)
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_SQL["insert_decisions"], *_columns(ordered))
        new = {row["action_id"] for row in rows}
        others = {one.action.action_id for one in decisions if one.action.action_id not in new}
        known = await self.find_decisions(sorted(others)) if others else {}
        answers = []
        for one in decisions:
            action_id = one.action.action_id
            if action_id in new:
                new.discard(action_id)
                known[action_id] = one
                answers.append(Kept(one, is_new=True))
            else:
                answers.append(Kept(known[action_id], is_new=False))
        return answers

    async def find_decisions(self, action_ids: Sequence[str]) -> dict[str, Decision]:
        """Return the decisions that exist, by action."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_decisions"], list(action_ids))
        return {row["action_id"]: _decision(row) for row in rows}

    # Resolutions.

    async def add_resolutions(
        self, connection: Connection, resolutions: Sequence[Resolution], at: datetime
    ) -> None:
        """Note what became of actions, in the caller's open transaction."""
        unique = {(one.action_id, one.confirmed): one for one in resolutions}
        ordered = [unique[key] for key in sorted(unique)]
        if ordered:
            await connection.execute(
                _SQL["insert_resolutions"],
                [one.action_id for one in ordered],
                [one.confirmed for one in ordered],
                [one.tenant_id for one in ordered],
                [one.mode for one in ordered],
                [one.biz_trace_id for one in ordered],
                [one.cause for one in ordered],
                at,
            )

    async def resolve(self, resolution: Resolution, at: datetime) -> None:
        """Note what became of one action."""
        async with self._pool.transaction() as connection:
            await self.add_resolutions(connection, [resolution], at)

    async def find_waiting(self, limit: int) -> list[Resolution]:
        """Return the oldest resolutions that the counters were not told of."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["find_waiting"], limit)
        return [
            Resolution(
                action_id=row["action_id"],
                confirmed=row["confirmed"],
                tenant_id=row["tenant_id"],
                mode=row["mode"],
            )
            for row in rows
        ]

    async def forget_waiting(self, told: Sequence[Resolution]) -> None:
        """Note that the counters were told."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _SQL["forget_waiting"],
                [one.action_id for one in told],
                [one.confirmed for one in told],
            )

    # Rules.

    async def find_current_version(self) -> int:
        """Return the number of the rules in force; 0 for none."""
        async with self._pool.acquire() as connection:
            return int(await connection.fetchval(_SQL["find_current_version"]))

    async def find_current_rules(self) -> Record | None:
        """Return the row of the rules in force."""
        async with self._pool.acquire() as connection:
            return await connection.fetchrow(_SQL["find_current_rules"])

    async def add_rules(
        self, version: int, digest: str, content: dict[str, Any], at: datetime
    ) -> None:
        """Add a version, unless another process has added it."""
        async with self._pool.acquire() as connection:
            await connection.execute(_SQL["insert_rules"], version, digest, content, at)

    # Audits.

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_facts(self, kind: str, after: str, limit: int) -> list[Record]:
        """Return a page of one kind of facts, behind a key; `kind` is a key of FACT_QUERIES."""
        async with self._pool.acquire() as connection:
            return await connection.fetch(_SQL[FACT_QUERIES[kind]], after, limit)


def _columns(decisions: Sequence[Decision]) -> list[list[Any]]:
    rows = (
        (
            one.action.action_id,
            one.tenant_id,
            one.mode,
            one.merchant_id,
            one.actor,
            one.biz_trace_id,
            one.action.action,
            one.action.product,
            one.action.amount.currency_code,
            one.action.amount.amount_minor,
            one.action.user_id,
            one.action.card_id,
            one.action.hashes.get("ip", ""),
            one.action.hashes.get("device", ""),
            one.verdict,
            ",".join(one.rules),
            one.rules_version,
            one.degraded,
            one.decided_at,
        )
        for one in decisions
    )
    return [list(column) for column in zip(*rows, strict=True)]


def _decision(row: Record) -> Decision:
    hashes = {"ip": row["ip_hash"], "device": row["device_hash"]}
    return Decision(
        action=Action(
            action_id=row["action_id"],
            action=row["action"],
            amount=Money(row["currency_code"], row["amount_minor"]),
            product=row["product"],
            user_id=row["user_id"],
            card_id=row["card_id"],
            hashes={name: value for name, value in hashes.items() if value},
        ),
        tenant_id=row["tenant_id"],
        mode=row["mode"],
        merchant_id=row["merchant_id"],
        actor=row["actor"],
        biz_trace_id=row["biz_trace_id"],
        verdict=Verdict(row["verdict"]),
        rules=tuple(row["rules"].split(",")) if row["rules"] else (),
        rules_version=row["rules_version"],
        degraded=row["degraded"],
        decided_at=row["decided_at"],
    )
