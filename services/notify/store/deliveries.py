"""Webhooks, their deliveries and every attempt at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.db.history import HistoryRow, add_history, cause_of_request
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from services.notify.domain.deliveries import Claim, Delivery, DeliveryState, Outcome, Owner
from services.notify.store.rows import (
    NewDelivery,
    attempt_columns,
    claim_from,
    delivery_columns,
    delivery_from,
    outcome_columns,
    webhook_columns,
)

_SQL: Final = load_queries("services.notify")
_ACTOR: Final = "SERVICE:notify"
_SWITCHED_OFF: Final = "address answered 410"


@dataclass(frozen=True, slots=True)
class Resend:
    """A request to send a delivery again."""

    delivery_id: str
    request_id: str
    owner: Owner
    """Who asks; its merchant is empty for the platform's own people."""
    actor: str
    at: datetime


class DeliveryStore:
    """Reads and writes of webhooks and deliveries."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_deliveries(
        self, connection: Connection, new: Sequence[NewDelivery], at: datetime
    ) -> int:
        """Write webhooks and their deliveries, due at once; return how many were new."""
        webhooks = list({one.webhook.id: one.webhook for one in new}.values())
        await connection.execute(_SQL["insert_webhooks"], *webhook_columns(webhooks), at)
        rows = await connection.fetch(_SQL["insert_deliveries"], *delivery_columns(new), _ACTOR, at)
        fresh = {row["id"] for row in rows}
        history = [
            HistoryRow(
                noun="delivery",
                id=one.id,
                version=1,
                from_state="",
                to_state=DeliveryState.PENDING,
                actor=_ACTOR,
                at=at,
                biz_trace_id=one.webhook.biz_trace_id,
                reason=one.webhook.type,
                cause=one.webhook.cause,
            )
            for one in new
            if one.id in fresh
        ]
        await add_history(connection, history)
        return len(history)

    # Sending.

    async def claim_deliveries(
        self,
        now: datetime,
        until: datetime,
        *,
        rooms: Mapping[str, int],
        room_per_endpoint: int,
        room: int,
    ) -> list[Claim]:
        """Take due deliveries until `until`, those due first before others.

        At most `room` in all and `room_per_endpoint` of an address, or what `rooms` says of it.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["claim_deliveries"],
                list(rooms),
                list(rooms.values()),
                room_per_endpoint,
                now,
                room,
                until,
            )
        return [claim_from(row) for row in sorted(rows, key=lambda row: row["next_attempt_at"])]

    async def renew_deliveries(
        self, held: Sequence[tuple[str, datetime]], until: datetime
    ) -> frozenset[str]:
        """Keep claims until `until`; return the ids of those that were still held.

        `held` are deliveries, and until when each was claimed: a claim that ran out and was taken
        by another says otherwise.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["renew_deliveries"],
                [delivery_id for delivery_id, _ in held],
                [claimed_until for _, claimed_until in held],
                until,
            )
        return frozenset(row["id"] for row in rows)

    async def release_deliveries(self, held: Sequence[tuple[str, datetime]]) -> None:
        """Give claims back that were not used; `held` as for `renew_deliveries`."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _SQL["release_deliveries"],
                [delivery_id for delivery_id, _ in held],
                [claimed_until for _, claimed_until in held],
            )

    async def save_outcomes(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Write what attempts brought; False where the delivery has changed meanwhile."""
        # In one order everywhere, or two processes lock each other's rows.
        ordered = sorted(outcomes, key=lambda outcome: outcome.claim.delivery_id)
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_SQL["update_deliveries"], *outcome_columns(ordered))
            written = {row["id"] for row in rows}
            done = [outcome for outcome in ordered if outcome.claim.delivery_id in written]
            await connection.execute(_SQL["insert_attempts"], *attempt_columns(done))
            await add_history(connection, [_move(outcome) for outcome in done if _ends(outcome)])
            gone = {
                outcome.claim.endpoint_id: outcome.at
                for outcome in done
                if outcome.answer is not None and outcome.answer.is_gone
            }
            if gone:
                await self._switch_off(connection, sorted(gone), max(gone.values()))
        return [outcome.claim.delivery_id in written for outcome in outcomes]

    async def find_written(self, outcomes: Sequence[Outcome]) -> list[bool | None]:
        """Say which outcomes were written, after an answer was lost; None for those that were not.

        A version beyond the claimed one means that this outcome or another one was.
        """
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["find_versions"], [outcome.claim.delivery_id for outcome in outcomes]
            )
        versions = {row["id"]: row["version"] for row in rows}
        return [
            True if versions.get(one.claim.delivery_id, 0) > one.claim.version else None
            for one in outcomes
        ]

    async def _switch_off(
        self, connection: Connection, endpoint_ids: Sequence[str], at: datetime
    ) -> None:
        endpoints = await connection.fetch(_SQL["disable_endpoints"], endpoint_ids, at)
        parked = await connection.fetch(_SQL["park_deliveries"], endpoint_ids, at)
        rows = [_switch("webhook_endpoint", "ENABLED", "DISABLED", row, at) for row in endpoints]
        rows += [_switch("delivery", "PENDING", "PARKED", row, at) for row in parked]
        await add_history(connection, rows)

    # Deliveries.

    async def find_delivery(self, delivery_id: str) -> Delivery | None:
        """Return a delivery."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_SQL["find_delivery"], delivery_id)
        return None if row is None else delivery_from(row)

    async def find_resend(self, owner: Owner, request_id: str) -> str | None:
        """Return the delivery that a request has sent again."""
        async with self._pool.acquire() as connection:
            found: str | None = await connection.fetchval(
                _SQL["find_resend"], owner.tenant_id, owner.mode, owner.merchant_id, request_id
            )
        return found

    async def resend(self, asked: Resend) -> Delivery | None:
        """Let a delivery be due from the beginning; None when nothing was changed.

        That is so when the request was made before, or when the address is switched off.
        """
        owner = asked.owner
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(_SQL["lock_delivery"], asked.delivery_id)
            if row is None or row["disabled"]:
                return None
            new = await connection.fetchval(
                _SQL["insert_resend"],
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                asked.request_id,
                asked.delivery_id,
                asked.actor,
                asked.at,
            )
            if new is None:
                return None
            after = await connection.fetchrow(_SQL["restart_delivery"], asked.delivery_id, asked.at)
            if after is None:
                return None
            history = HistoryRow(
                noun="delivery",
                id=asked.delivery_id,
                version=after["version"],
                from_state=row["state"],
                to_state=DeliveryState.PENDING,
                actor=asked.actor,
                at=asked.at,
                biz_trace_id=row["biz_trace_id"],
                reason="sent again by hand",
                cause=cause_of_request(asked.request_id),
            )
            await add_history(connection, [history])
        return delivery_from(after)

    async def list_deliveries(
        self, owner: Owner, subject_id: str, after: tuple[datetime, str] | None, limit: int
    ) -> list[Delivery]:
        """Return deliveries, newest first, from behind `after` (creation and id) on."""
        created_at, delivery_id = after or (None, "")
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["list_deliveries"],
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                subject_id,
                created_at,
                delivery_id,
                limit,
            )
        return [delivery_from(row) for row in rows]

    # Facts.

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_rows(self, query: str, after: str, limit: int) -> list[Record]:
        """Return rows of a query of facts in the order of their ids, behind `after`."""
        async with self._pool.acquire() as connection:
            return await connection.fetch(_SQL[query], after, limit)


def _ends(outcome: Outcome) -> bool:
    return outcome.state is not DeliveryState.PENDING


def _move(outcome: Outcome) -> HistoryRow:
    return HistoryRow(
        noun="delivery",
        id=outcome.claim.delivery_id,
        version=outcome.claim.version + 1,
        from_state=DeliveryState.PENDING,
        to_state=outcome.state,
        actor=_ACTOR,
        at=outcome.at,
        biz_trace_id=outcome.claim.biz_trace_id,
        reason=outcome.reason,
        cause=f"attempt {outcome.attempts}",
    )


def _switch(noun: str, before: str, after: str, row: Record, at: datetime) -> HistoryRow:
    return HistoryRow(
        noun=noun,
        id=row["id"],
        version=row["version"],
        from_state=before,
        to_state=after,
        actor=_ACTOR,
        at=at,
        biz_trace_id=row["biz_trace_id"],
        reason=_SWITCHED_OFF,
    )
