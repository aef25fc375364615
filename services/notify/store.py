"""Addresses, webhooks and deliveries in PostgreSQL; what is hot takes a batch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.db.history import HistoryRow, add_history, list_story_history
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from services.notify.domain.deliveries import (
    Claim,
    Delivery,
    DeliveryState,
    Endpoint,
    Outcome,
    Owner,
    Webhook,
)

_SQL: Final = load_queries("services.notify")
_ACTOR: Final = "SERVICE:notify"
_SWITCHED_OFF: Final = "address answered 410"


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An address as it is to be written."""

    endpoint: Endpoint
    request_id: str
    sealed_secret: bytes
    actor: str
    biz_trace_id: str


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A delivery as it is to be written."""

    id: str
    webhook: Webhook
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class Resend:
    """A request to send a delivery again."""

    delivery_id: str
    request_id: str
    owner: Owner
    """Who asks; its merchant is empty for the platform's own people."""
    actor: str
    at: datetime


class NotifyStore:
    """Reads and writes of the schema `notify`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # Addresses.

    async def add_endpoint(self, new: NewEndpoint) -> Endpoint | None:
        """Write an address; return None when it is new, else the one that its request made."""
        endpoint, owner = new.endpoint, new.endpoint.owner
        async with self._pool.transaction() as connection:
            written = await connection.fetchval(
                _SQL["insert_endpoint"],
                endpoint.id,
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                new.actor,
                new.request_id,
                endpoint.url,
                list(endpoint.types),
                new.sealed_secret,
                new.biz_trace_id,
                endpoint.created_at,
            )
            if written is not None:
                row = HistoryRow(
                    noun="webhook_endpoint",
                    id=endpoint.id,
                    version=1,
                    from_state="",
                    to_state="ENABLED",
                    actor=new.actor,
                    at=endpoint.created_at,
                    biz_trace_id=new.biz_trace_id,
                    cause=new.request_id,
                )
                await add_history(connection, [row])
                return None
        return await self.find_endpoint_of_request(owner, new.request_id)

    async def find_endpoint_of_request(self, owner: Owner, request_id: str) -> Endpoint | None:
        """Return the address that a request made."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _SQL["find_endpoint_of_request"],
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                request_id,
            )
        return None if row is None else _endpoint(row)

    async def count_endpoints(self, owner: Owner) -> int:
        """Return how many addresses a merchant uses."""
        async with self._pool.acquire() as connection:
            return int(
                await connection.fetchval(
                    _SQL["count_endpoints"], owner.tenant_id, owner.mode, owner.merchant_id
                )
            )

    async def list_endpoints(self, owner: Owner, limit: int) -> list[Endpoint]:
        """Return addresses, oldest first; of all merchants when the owner names none."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["list_endpoints"], owner.tenant_id, owner.mode, owner.merchant_id, limit
            )
        return [_endpoint(row) for row in rows]

    # Webhooks; in the transaction in which their events are heard.

    async def find_listeners(
        self, connection: Connection, owners: Collection[Owner]
    ) -> dict[Owner, list[Endpoint]]:
        """Return the addresses in use of each of these merchants."""
        rows = await connection.fetch(
            _SQL["find_listeners"],
            [owner.tenant_id for owner in owners],
            [owner.mode for owner in owners],
            [owner.merchant_id for owner in owners],
        )
        found: dict[Owner, list[Endpoint]] = {}
        for row in rows:
            endpoint = _endpoint(row)
            found.setdefault(endpoint.owner, []).append(endpoint)
        return found

    async def add_deliveries(
        self, connection: Connection, new: Sequence[NewDelivery], at: datetime
    ) -> int:
        """Write webhooks and their deliveries, due at once; return how many were new."""
        webhooks = list({one.webhook.id: one.webhook for one in new}.values())
        await connection.execute(_SQL["insert_webhooks"], *_webhook_columns(webhooks), at)
        rows = await connection.fetch(
            _SQL["insert_deliveries"], *_delivery_columns(new), _ACTOR, at
        )
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
        return [_claim(row) for row in sorted(rows, key=lambda row: row["next_attempt_at"])]

    async def release_deliveries(self, claims: Sequence[Claim]) -> None:
        """Give claims back that were not used."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _SQL["release_deliveries"],
                [claim.delivery_id for claim in claims],
                [claim.version for claim in claims],
            )

    async def save_outcomes(self, outcomes: Sequence[Outcome]) -> list[bool]:
        """Write what attempts brought; False where the delivery has changed meanwhile."""
        # In one order everywhere, or two processes lock each other's rows.
        ordered = sorted(outcomes, key=lambda outcome: outcome.claim.delivery_id)
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_SQL["update_deliveries"], *_outcome_columns(ordered))
            written = {row["id"] for row in rows}
            done = [outcome for outcome in ordered if outcome.claim.delivery_id in written]
            await connection.execute(_SQL["insert_attempts"], *_attempt_columns(done))
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
        return None if row is None else _delivery(row)

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
                cause=asked.request_id,
            )
            await add_history(connection, [history])
        return _delivery(after)

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
        return [_delivery(row) for row in rows]

    # Stories and facts.

    async def find_story(self, subject_id: str) -> str:
        """Return the story that an id belongs to; empty when none is known."""
        async with self._pool.acquire() as connection:
            return await connection.fetchval(_SQL["find_story"], subject_id) or ""

    async def list_story(self, biz_trace_id: str) -> tuple[list[HistoryRow], list[Record]]:
        """Return the state changes and the attempts of a story."""
        async with self._pool.acquire() as connection:
            moves = await list_story_history(connection, biz_trace_id)
            attempts = await connection.fetch(_SQL["list_story_attempts"], biz_trace_id)
        return moves, attempts

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


def _webhook_columns(webhooks: Sequence[Webhook]) -> list[list[str]]:
    return [
        [webhook.id for webhook in webhooks],
        [webhook.owner.tenant_id for webhook in webhooks],
        [webhook.owner.mode for webhook in webhooks],
        [webhook.owner.merchant_id for webhook in webhooks],
        [webhook.type for webhook in webhooks],
        [webhook.subject_id for webhook in webhooks],
        [webhook.biz_trace_id for webhook in webhooks],
        [webhook.body for webhook in webhooks],
        [webhook.cause for webhook in webhooks],
    ]


def _delivery_columns(new: Sequence[NewDelivery]) -> list[list[str]]:
    return [
        [one.id for one in new],
        [one.webhook.id for one in new],
        [one.endpoint_id for one in new],
        [one.webhook.owner.tenant_id for one in new],
        [one.webhook.owner.mode for one in new],
        [one.webhook.owner.merchant_id for one in new],
        [one.webhook.type for one in new],
        [one.webhook.subject_id for one in new],
        [one.webhook.biz_trace_id for one in new],
    ]


def _outcome_columns(outcomes: Sequence[Outcome]) -> list[list[object]]:
    return [
        [one.claim.delivery_id for one in outcomes],
        [one.claim.version for one in outcomes],
        [str(one.state) for one in outcomes],
        [one.attempts for one in outcomes],
        [one.answer.http_status if one.answer else None for one in outcomes],
        [one.next_attempt_at for one in outcomes],
        [one.at for one in outcomes],
    ]


def _attempt_columns(outcomes: Sequence[Outcome]) -> list[list[object]]:
    sent = [(one, one.answer) for one in outcomes if one.answer is not None]
    return [
        [one.claim.delivery_id for one, _ in sent],
        [one.attempts for one, _ in sent],
        [answer.http_status for _, answer in sent],
        [answer.problem for _, answer in sent],
        [answer.took_ms for _, answer in sent],
        [one.at for one, _ in sent],
    ]


def _owner(row: Record) -> Owner:
    return Owner(row["tenant_id"], row["mode"], row["merchant_id"])


def _endpoint(row: Record) -> Endpoint:
    return Endpoint(
        id=row["id"],
        owner=_owner(row),
        url=row["url"],
        types=tuple(row["types"]),
        disabled=row["disabled"],
        created_at=row["created_at"],
    )


def _claim(row: Record) -> Claim:
    return Claim(
        delivery_id=row["id"],
        version=row["version"],
        attempts=row["attempts"],
        tries=row["tries"],
        webhook_id=row["webhook_id"],
        endpoint_id=row["endpoint_id"],
        url=row["url"],
        sealed_secret=row["sealed_secret"],
        is_endpoint_disabled=row["disabled"],
        body=row["body"],
        biz_trace_id=row["biz_trace_id"],
    )


def _delivery(row: Record) -> Delivery:
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        endpoint_id=row["endpoint_id"],
        owner=_owner(row),
        type=row["type"],
        subject_id=row["subject_id"],
        biz_trace_id=row["biz_trace_id"],
        state=DeliveryState(row["state"]),
        attempts=row["attempts"],
        last_http_status=row["last_http_status"],
        next_attempt_at=row["next_attempt_at"],
        created_at=row["created_at"],
        version=row["version"],
    )
