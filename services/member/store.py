"""The rows of member; the methods of the hot path take batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from common.audit import AuditEntry, add_audit
from common.db.history import HistoryRow, add_history
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection, Record
from services.member.domain import Card, Merchant, MerchantKey, Status, User

_QUERIES: Final = load_queries("services.member")


class MemberStore:
    """Merchants, keys, users and cards in PostgreSQL."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # Merchants.

    async def add_merchant(
        self, merchant: Merchant, history: HistoryRow, audit: AuditEntry
    ) -> tuple[Merchant, bool]:
        """Register a merchant; return it, or the one that it collides with, and if it is new."""
        async with self._pool.transaction() as connection:
            added = await connection.fetchval(
                _QUERIES["add_merchant"],
                merchant.id,
                merchant.tenant_id,
                merchant.mode,
                merchant.merchant_no,
                merchant.name,
                list(merchant.currency_codes),
                merchant.request_id,
                merchant.actor,
                merchant.biz_trace_id,
                merchant.created_at,
            )
            if added is not None:
                await add_history(connection, [history])
                await add_audit(connection, audit)
                return merchant, True
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _QUERIES["find_merchant_again"],
                merchant.tenant_id,
                merchant.request_id,
                merchant.merchant_no,
            )
        if row is None:
            raise RuntimeError("a merchant collided with none")
        return _merchant(row), False

    async def find_merchant(self, tenant_id: str, merchant_id: str) -> Merchant | None:
        """Return a merchant."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_merchant"], merchant_id, tenant_id)
        return None if row is None else _merchant(row)

    async def activate_merchant(self, merchant: Merchant, history: HistoryRow) -> Merchant | None:
        """Let a merchant do business; None when it was changed meanwhile."""
        async with self._pool.transaction() as connection:
            return await _move_merchant(connection, merchant, Status.ACTIVE, history)

    async def change_merchant(
        self,
        merchant: Merchant,
        after: Status,
        request_id: str,
        history: HistoryRow,
        audit: AuditEntry,
    ) -> Merchant | None:
        """Change a status as an operator asked; None when anything was changed meanwhile."""
        async with self._pool.transaction() as connection:
            noted = await connection.fetchval(
                _QUERIES["add_status_change"],
                merchant.tenant_id,
                request_id,
                merchant.id,
                after,
                audit.reason,
                history.actor,
                history.at,
            )
            if noted is None:
                return None
            moved = await _move_merchant(connection, merchant, after, history)
            if moved is None:
                raise ChangedMeanwhileError
            await add_audit(connection, audit)
            return moved

    async def find_status_change(
        self, tenant_id: str, request_id: str
    ) -> tuple[str, str, str] | None:
        """Return merchant, status and reason that a request asked for."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_status_change"], tenant_id, request_id)
        return None if row is None else (row["merchant_id"], row["status"], row["reason"])

    async def list_opening_merchants(self, before: datetime) -> list[Merchant]:
        """Return merchants that have been OPENING since before an instant."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_QUERIES["list_opening_merchants"], before)
        return [_merchant(row) for row in rows]

    # Keys.

    async def add_key(
        self, key: MerchantKey, history: HistoryRow, audit: AuditEntry
    ) -> tuple[MerchantKey, bool]:
        """Register a key; return it, or the one that its request registered, and if it is new."""
        async with self._pool.transaction() as connection:
            added = await connection.fetchval(
                _QUERIES["add_key"],
                key.id,
                key.tenant_id,
                key.merchant_id,
                key.mode,
                key.public_key,
                key.request_id,
                key.actor,
                key.created_at,
            )
            if added is not None:
                await add_history(connection, [history])
                await add_audit(connection, audit)
                return key, True
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _QUERIES["find_key_by_request"], key.tenant_id, key.request_id
            )
        if row is None:
            raise RuntimeError("a key collided with none")
        return _key(row), False

    async def find_key(self, tenant_id: str, key_id: str) -> MerchantKey | None:
        """Return a key, also a revoked one."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_key"], key_id, tenant_id)
        return None if row is None else _key(row)

    async def revoke_key(
        self, key: MerchantKey, history: HistoryRow, audit: AuditEntry
    ) -> MerchantKey | None:
        """Take a key back; None when that was done before."""
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(
                _QUERIES["revoke_key"], key.id, key.tenant_id, history.at
            )
            if row is None:
                return None
            await add_history(connection, [history])
            await add_audit(connection, audit)
            return _key(row)

    # Users.

    async def add_users(
        self, users: Sequence[User], histories: Sequence[HistoryRow]
    ) -> list[tuple[User, bool]]:
        """Register users; return each, or the one that it collides with, and if it is new."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(
                _QUERIES["add_users"],
                [one.id for one in users],
                [one.tenant_id for one in users],
                [one.mode for one in users],
                [one.merchant_id for one in users],
                [one.merchant_user_no for one in users],
                [",".join(one.currency_codes) for one in users],
                [one.request_id for one in users],
                [one.actor for one in users],
                [one.biz_trace_id for one in users],
                [one.created_at for one in users],
            )
            added = {row["id"] for row in rows}
            await add_history(connection, [one for one in histories if one.id in added])
        again = [one for one in users if one.id not in added]
        known = await self._find_users_again(again) if again else {}
        return [(one, True) if one.id in added else (known[one.id], False) for one in users]

    async def _find_users_again(self, users: Sequence[User]) -> dict[str, User]:
        """Return the users collided with, by the ids that were made for the new ones."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["find_users_again"],
                [one.tenant_id for one in users],
                [one.mode for one in users],
                [one.merchant_id for one in users],
                [one.request_id for one in users],
                [one.merchant_user_no for one in users],
            )
        return {users[row["place"] - 1].id: _user(row) for row in rows}

    async def activate_users(self, user_ids: Sequence[str], at: datetime) -> dict[str, User]:
        """Let users do business whose accounts are open; return them all as they are now."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(_QUERIES["activate_users"], list(user_ids), at)
            await add_history(
                connection,
                [
                    HistoryRow(
                        noun="user",
                        id=row["id"],
                        version=row["version"],
                        from_state=Status.OPENING,
                        to_state=Status.ACTIVE,
                        actor=row["actor"],
                        at=at,
                        biz_trace_id=row["biz_trace_id"],
                    )
                    for row in rows
                ],
            )
            found = await connection.fetch(_QUERIES["find_users"], list(user_ids))
        return {row["id"]: _user(row) for row in found}

    async def find_user(self, tenant_id: str, mode: str, user_id: str) -> User | None:
        """Return a user."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_user"], user_id, tenant_id, mode)
        return None if row is None else _user(row)

    async def list_opening_users(self, before: datetime) -> list[User]:
        """Return users that have been OPENING since before an instant."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_QUERIES["list_opening_users"], before)
        return [_user(row) for row in rows]

    # Cards.

    async def add_cards(
        self, cards: Sequence[Card], histories: Sequence[HistoryRow]
    ) -> list[tuple[Card, bool]]:
        """Bind cards; return each, or the one that it collides with, and if it is new."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(
                _QUERIES["add_cards"],
                [one.id for one in cards],
                [one.tenant_id for one in cards],
                [one.mode for one in cards],
                [one.merchant_id for one in cards],
                [one.user_id for one in cards],
                [one.last_four for one in cards],
                [one.bank_code for one in cards],
                [one.key_id for one in cards],
                [one.sealed for one in cards],
                [one.number_hash for one in cards],
                [one.elements_hash for one in cards],
                [one.request_id for one in cards],
                [one.actor for one in cards],
                [one.biz_trace_id for one in cards],
                [one.created_at for one in cards],
            )
            added = {row["id"] for row in rows}
            await add_history(connection, [one for one in histories if one.id in added])
        again = [one for one in cards if one.id not in added]
        known = await self._find_cards_again(again) if again else {}
        return [(one, True) if one.id in added else (known[one.id], False) for one in cards]

    async def _find_cards_again(self, cards: Sequence[Card]) -> dict[str, Card]:
        async with self._pool.acquire() as connection:
            by_number = await connection.fetch(
                _QUERIES["find_cards_by_number"],
                [one.user_id for one in cards],
                [one.number_hash for one in cards],
            )
            by_request = await connection.fetch(
                _QUERIES["find_cards_by_request"],
                [one.tenant_id for one in cards],
                [one.mode for one in cards],
                [one.merchant_id for one in cards],
                [one.request_id for one in cards],
            )
        # What the same request bound counts before what another bound under the same number.
        return {cards[row["place"] - 1].id: _card(row) for row in (*by_number, *by_request)}

    async def find_card(self, tenant_id: str, mode: str, card_id: str) -> Card | None:
        """Return a card, also an unbound one."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(_QUERIES["find_card"], card_id, tenant_id, mode)
        return None if row is None else _card(row)

    async def list_cards_of_other_keys(
        self, key_id: str, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        """Return ids and sealed elements of cards under another master key, by id."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _QUERIES["list_cards_of_other_keys"], key_id, after, limit
            )
        return [(row["id"], row["sealed"]) for row in rows]

    async def reseal_cards(self, key_id: str, resealed: Sequence[tuple[str, bytes, bytes]]) -> None:
        """Put cards (id, sealed before, sealed now) under another master key."""
        async with self._pool.acquire() as connection:
            await connection.execute(
                _QUERIES["reseal_cards"],
                [one[0] for one in resealed],
                [one[1] for one in resealed],
                [one[2] for one in resealed],
                key_id,
            )

    # Stories and facts.

    @property
    def pool(self) -> Pool:
        """Connections to the schema, for what all services tell alike (common.story)."""
        return self._pool

    async def list_subject(self, tenant_id: str, subject_id: str) -> list[HistoryRow]:
        """Return what became of the nouns that a number stands for, oldest first."""
        async with self._pool.acquire() as connection:
            found = await connection.fetch(_QUERIES["find_subjects"], subject_id, tenant_id)
            rows = await connection.fetch(_QUERIES["list_history_of"], [row["id"] for row in found])
        return [HistoryRow(**dict(row.items())) for row in rows]

    async def list_unfinished(self, after: str, limit: int) -> list[tuple[str, str, str]]:
        """Return key, noun and state of what has not ended, by key."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_QUERIES["list_unfinished"], after, limit)
        return [(row["key"], row["noun"], row["state"]) for row in rows]


class ChangedMeanwhileError(Exception):
    """Another changed the row between reading and writing; the transaction was undone."""


async def _move_merchant(
    connection: Connection, merchant: Merchant, after: Status, history: HistoryRow
) -> Merchant | None:
    row = await connection.fetchrow(
        _QUERIES["move_merchant"], merchant.id, merchant.version, after, history.at
    )
    if row is None:
        return None
    await add_history(connection, [history])
    return _merchant(row)


def _fields(row: Record) -> dict[str, Any]:
    fields = dict(row.items())
    fields.pop("place", None)
    return fields


def _merchant(row: Record) -> Merchant:
    fields = _fields(row)
    fields |= {
        "status": Status(fields["status"]),
        "currency_codes": tuple(fields["currency_codes"]),
    }
    return Merchant(**fields)


def _key(row: Record) -> MerchantKey:
    return MerchantKey(**_fields(row))


def _user(row: Record) -> User:
    fields = _fields(row)
    fields |= {
        "status": Status(fields["status"]),
        "currency_codes": tuple(fields["currency_codes"]),
    }
    return User(**fields)


def _card(row: Record) -> Card:
    return Card(**_fields(row))
