"""Orders: made, claimed, completed and closed, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Final

from common.clock import Clock
from common.db.history import HistoryRow, add_history, cause_of_request
from common.db.pool import Pool
from common.db.types import Connection
from common.events.outbox import Outbox
from services.trade.domain import CLAIMABLE, Claim, Completion, Order, OrderState
from services.trade.errors import ContradictionError
from services.trade.store.rows import ACTOR, QUERIES, Announcer, order_from


@dataclass(frozen=True, slots=True)
class Made:
    """What became of an order that was to be written."""

    order: Order
    """It, or the one that was there before."""
    is_new: bool
    holds_request: bool = True
    """When not new: the same request made it; otherwise another one uses the number."""


class OrderStore:
    """Orders of the schema `trade`."""

    def __init__(self, pool: Pool, outbox: Outbox, announcer: Announcer, clock: Clock) -> None:
        self._pool = pool
        self._outbox = outbox
        self._announcer = announcer
        self._clock = clock

    async def insert_orders(self, orders: Sequence[Order]) -> list[Made]:
        """Write orders whose number and request are new; answer for each, safe to repeat."""
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(QUERIES["insert_orders"], *_columns(orders))
            new_ids = {row["id"] for row in rows}
            born = [order for order in orders if order.id in new_ids]
            await self._write_births(connection, born)
        if any(order.state is OrderState.COMPLETED for order in born):
            self._outbox.notify()
        missing = [order for order in orders if order.id not in new_ids]
        in_the_way = await self._find_in_the_way(missing) if missing else []
        by_request = {_request_of(order): order for order in in_the_way}
        by_number = {_number_of(order): order for order in in_the_way}
        answers = []
        for order in orders:
            if order.id in new_ids:
                answers.append(Made(order, is_new=True))
            elif (found := by_request.get(_request_of(order))) is not None:
                # Written by an earlier try of this very flush, the answer of which was lost.
                answers.append(Made(found, is_new=found.id == order.id))
            else:
                found = by_number[_number_of(order)]
                answers.append(Made(found, is_new=False, holds_request=False))
        return answers

    async def _write_births(self, connection: Connection, born: Sequence[Order]) -> None:
        waiting = [order for order in born if order.state is OrderState.CREATED]
        if waiting:
            await connection.execute(
                QUERIES["open_orders"],
                [order.id for order in waiting],
                [order.expires_at for order in waiting],
            )
        await add_history(
            connection,
            [
                HistoryRow(
                    noun="order",
                    id=order.id,
                    version=order.version,
                    from_state="",
                    to_state=order.state,
                    actor=order.actor,
                    at=order.created_at,
                    biz_trace_id=order.biz_trace_id,
                    cause=cause_of_request(order.request_id),
                )
                for order in born
            ],
        )
        await self._outbox.add(
            connection,
            [
                self._announcer.order_completed(
                    order, order.created_at, cause_of_request(order.request_id)
                )
                for order in born
                if order.state is OrderState.COMPLETED
            ],
        )

    async def _find_in_the_way(self, orders: Sequence[Order]) -> list[Order]:
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["find_orders_in_the_way"],
                [order.tenant_id for order in orders],
                [order.mode for order in orders],
                [order.merchant_id for order in orders],
                [order.request_id for order in orders],
                [order.merchant_order_no for order in orders],
            )
        return [order_from(row) for row in rows]

    async def find_orders(self, ids: Sequence[str]) -> list[Order | None]:
        """Return the orders of ids, in their order."""
        async with self._pool.acquire() as connection:
            return await self._find_in(connection, ids)

    async def _find_in(self, connection: Connection, ids: Sequence[str]) -> list[Order | None]:
        rows = await connection.fetch(QUERIES["find_orders"], list(dict.fromkeys(ids)))
        found = {row["id"]: order_from(row) for row in rows}
        return [found.get(order_id) for order_id in ids]

    async def list_orders(
        self, merchant_id: str, tenant_id: str, mode: str, before_id: str, number: str, limit: int
    ) -> list[Order]:
        """Return orders of a merchant, newest first, older than `before_id` unless it is empty."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["list_orders"], merchant_id, tenant_id, mode, before_id, number, limit
            )
        return [order_from(row) for row in rows]

    async def claim_orders(self, claims: Sequence[Claim]) -> list[Order | None]:
        """Let payments win orders; answer each order as it is then, None for an unknown one.

        The first claim of an order in the batch is the one that is tried. Safe to repeat: a claim
        has won exactly when the order's `payment_id` is its own.
        """
        async with self._pool.transaction() as connection:
            await self.claim_in(connection, claims)
            return await self._find_in(connection, [claim.order_id for claim in claims])

    async def claim_in(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Let payments win orders, in the caller's transaction."""
        first: dict[str, Claim] = {}
        for claim in claims:
            first.setdefault(claim.order_id, claim)
        now = self._clock.now()
        rows = await connection.fetch(
            QUERIES["claim_orders"],
            list(first),
            [claim.payment_id for claim in first.values()],
            now,
        )
        await add_history(
            connection,
            [
                HistoryRow(
                    noun="order",
                    id=row["id"],
                    version=row["version"],
                    from_state=row["from_state"],
                    to_state=OrderState.PAID,
                    actor="SERVICE:payment",
                    at=now,
                    biz_trace_id=row["biz_trace_id"],
                    reason=f"won by {first[row['id']].payment_id}",
                    cause=first[row["id"]].cause,
                )
                for row in rows
            ],
        )

    async def complete_in(self, connection: Connection, booked: Sequence[Completion]) -> int:
        """End orders whose payment is booked, in the caller's transaction; return how many.

        An order that this payment has not claimed yet is claimed on the way; one that ended with
        it before is left alone.

        Raises:
            ContradictionError: no such order, another payment's, or of another amount.
        """
        by_order = {one.order_id: one for one in booked}
        done = await self._complete(connection, list(by_order.values()))
        late = [one for order_id, one in by_order.items() if order_id not in done]
        late = await self._still_to_complete(connection, late) if late else []
        if late:
            await self.claim_in(
                connection, [Claim(one.order_id, one.payment_id, one.cause) for one in late]
            )
            done |= await self._complete(connection, late)
            left = await self._still_to_complete(
                connection, [one for one in late if one.order_id not in done]
            )
            if left:
                raise ContradictionError(f"order {left[0].order_id} cannot be completed")
        # Two payments of one order in one batch: only one of them can be right.
        for one in booked:
            if by_order[one.order_id].payment_id != one.payment_id:
                raise ContradictionError(f"order {one.order_id} is booked by two payments")
        return len(done)

    async def _still_to_complete(
        self, connection: Connection, booked: Sequence[Completion]
    ) -> list[Completion]:
        """Return those whose order still waits for them; raises ContradictionError."""
        if not booked:
            return []
        waiting = []
        orders = await self._find_in(connection, [one.order_id for one in booked])
        for one, order in zip(booked, orders, strict=True):
            if order is None:
                raise ContradictionError(f"there is no order {one.order_id}")
            if order.amount != one.amount:
                raise ContradictionError(
                    f"order {order.id} is of {order.amount}, {one.payment_id} of {one.amount}"
                )
            if order.payment_id not in ("", one.payment_id):
                raise ContradictionError(
                    f"order {order.id} was won by {order.payment_id}, not by {one.payment_id}"
                )
            if order.state is OrderState.COMPLETED:
                continue
            if order.payment_id == "" and order.state not in CLAIMABLE:
                raise ContradictionError(f"order {order.id} is {order.state}")
            waiting.append(one)
        return waiting

    async def _complete(self, connection: Connection, booked: Sequence[Completion]) -> set[str]:
        now = self._clock.now()
        rows = await connection.fetch(
            QUERIES["complete_orders"],
            [one.order_id for one in booked],
            [one.payment_id for one in booked],
            [one.amount.currency_code for one in booked],
            [one.amount.amount_minor for one in booked],
            [one.business_date for one in booked],
            now,
        )
        causes = {one.order_id: one.cause for one in booked}
        orders = [order_from(row) for row in rows]
        ids = {order.id for order in orders}
        if orders:
            await connection.execute(QUERIES["forget_open_orders"], list(ids))
            await add_history(
                connection,
                [_move(one, OrderState.PAID, "booked", causes[one.id], now) for one in orders],
            )
            await self._outbox.add(
                connection,
                [self._announcer.order_completed(one, now, causes[one.id]) for one in orders],
            )
        return ids

    async def begin_closing(self, ids: Sequence[str], actor: str, cause: str) -> None:
        """Let those orders be closing that nobody has paid."""
        now = self._clock.now()
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(QUERIES["begin_closing"], list(ids), now)
            await add_history(
                connection,
                [
                    HistoryRow(
                        noun="order",
                        id=row["id"],
                        version=row["version"],
                        from_state=OrderState.CREATED,
                        to_state=OrderState.CLOSING,
                        actor=actor,
                        at=now,
                        biz_trace_id=row["biz_trace_id"],
                        cause=cause,
                    )
                    for row in rows
                ],
            )

    async def finish_closing(self, ids: Sequence[str], cause: str) -> None:
        """Close those orders that are closing still: a payment may have won one meanwhile."""
        if not ids:
            return
        now = self._clock.now()
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(QUERIES["finish_closing"], list(ids), now)
            orders = [order_from(row) for row in rows]
            if not orders:
                return
            await connection.execute(QUERIES["forget_open_orders"], [order.id for order in orders])
            await add_history(
                connection,
                [_move(one, OrderState.CLOSING, "nobody paid", cause, now) for one in orders],
            )
            await self._outbox.add(
                connection, [self._announcer.order_closed(one, now, cause) for one in orders]
            )
        self._outbox.notify()

    async def take_due(self, until: datetime, limit: int) -> list[tuple[str, int]]:
        """Take open orders whose time has come, and how often that was; put off to `until`."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["take_due_orders"], self._clock.now(), until, limit
            )
        # The statement answers in no order.
        return sorted((row["order_id"], row["attempts"]) for row in rows)

    async def put_off(self, later: Sequence[tuple[str, datetime]]) -> None:
        """Look at open orders again at the times given."""
        if later:
            async with self._pool.acquire() as connection:
                await connection.execute(
                    QUERIES["put_off_orders"], [one[0] for one in later], [one[1] for one in later]
                )

    async def find_business_date(self, tenant_id: str, mode: str) -> str:
        """Return the last business date that was heard of; empty before the first."""
        async with self._pool.acquire() as connection:
            found = await connection.fetchval(QUERIES["find_business_date"], tenant_id, mode)
        return found or ""

    async def keep_business_date(self, tenant_id: str, mode: str, business_date: str) -> None:
        """Note a business date; an earlier one than the last changes nothing."""
        async with self._pool.acquire() as connection:
            await self.keep_business_date_in(connection, tenant_id, mode, business_date)

    async def keep_business_date_in(
        self, connection: Connection, tenant_id: str, mode: str, business_date: str
    ) -> None:
        """Note a business date in the caller's transaction."""
        await connection.execute(
            QUERIES["keep_business_date"], tenant_id, mode, business_date, self._clock.now()
        )


def _request_of(order: Order) -> tuple[str, str, str, str]:
    return order.tenant_id, order.mode, order.merchant_id, order.request_id


def _number_of(order: Order) -> tuple[str, str, str, str]:
    return order.tenant_id, order.mode, order.merchant_id, order.merchant_order_no


def _move(order: Order, before: OrderState, reason: str, cause: str, at: datetime) -> HistoryRow:
    return HistoryRow(
        noun="order",
        id=order.id,
        version=order.version,
        from_state=before,
        to_state=order.state,
        actor=ACTOR,
        at=at,
        biz_trace_id=order.biz_trace_id,
        reason=reason,
        cause=cause,
    )


_read_columns: Final = attrgetter(
    "id",
    "tenant_id",
    "mode",
    "merchant_id",
    "actor",
    "request_id",
    "merchant_order_no",
    "type",
    "state",
    "currency_code",
    "amount_minor",
    "fee_minor",
    "fee_rate_ppm",
    "fee_returned_on_refund",
    "user_id",
    "subject",
    "biz_trace_id",
    "metadata",
    "expires_in_seconds",
    "business_date",
    "expires_at",
    "created_at",
)


def _columns(orders: Sequence[Order]) -> list[list[object]]:
    return [list(column) for column in zip(*map(_read_columns, orders), strict=True)]
