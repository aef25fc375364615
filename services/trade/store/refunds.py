"""Refunds: asked for one by one under their order's cap, ended many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from common.clock import Clock
from common.db.history import HistoryRow, add_history, cause_of_request
from common.db.pool import Pool
from common.db.types import Connection, Record
from common.events.outbox import Outbox
from services.trade.domain import REFUND_ENDED, Order, Refund, RefundNews, RefundState
from services.trade.errors import ContradictionError, RefundExceedsPaymentError
from services.trade.store.rows import ACTOR, QUERIES, Announcer, order_from, refund_from


class RefundStore:
    """Refunds of the schema `trade`."""

    def __init__(self, pool: Pool, outbox: Outbox, announcer: Announcer, clock: Clock) -> None:
        self._pool = pool
        self._outbox = outbox
        self._announcer = announcer
        self._clock = clock

    async def insert_refund(self, refund: Refund, ask_again_at: datetime) -> Refund | None:
        """Write a refund and take its part of what is left of the order.

        Returns None when it is new, or the refund that holds its request id or its number.

        Raises:
            RefundExceedsPaymentError: less is left; nothing was written.
        """
        async with self._pool.transaction() as connection:
            written = await connection.fetchval(
                QUERIES["insert_refund"],
                refund.id,
                refund.order_id,
                refund.payment_id,
                refund.tenant_id,
                refund.mode,
                refund.merchant_id,
                refund.actor,
                refund.request_id,
                refund.merchant_refund_no,
                refund.currency_code,
                refund.amount_minor,
                refund.reason,
                refund.biz_trace_id,
                refund.created_at,
            )
            if written is not None:
                await self._reserve(connection, refund, ask_again_at)
                return None
        return await self._find_in_the_way(refund)

    async def _reserve(
        self, connection: Connection, refund: Refund, ask_again_at: datetime
    ) -> None:
        reserved = await connection.fetchval(
            QUERIES["reserve_refund"], refund.order_id, refund.amount_minor
        )
        if reserved is None:
            row = await connection.fetchrow(QUERIES["find_orders"], [refund.order_id])
            left = 0 if row is None else order_from(row).refundable_minor
            raise RefundExceedsPaymentError(refundable_minor=left)
        await connection.execute(QUERIES["open_refund"], refund.id, ask_again_at)
        await add_history(
            connection,
            [
                HistoryRow(
                    noun="refund",
                    id=refund.id,
                    version=refund.version,
                    from_state="",
                    to_state=refund.state,
                    actor=refund.actor,
                    at=refund.created_at,
                    biz_trace_id=refund.biz_trace_id,
                    cause=cause_of_request(refund.request_id),
                )
            ],
        )

    async def _find_in_the_way(self, refund: Refund) -> Refund:
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                QUERIES["find_refund_in_the_way"],
                refund.tenant_id,
                refund.mode,
                refund.merchant_id,
                refund.request_id,
                refund.merchant_refund_no,
            )
        if row is None:
            raise RuntimeError(f"refund {refund.id} was neither written nor is one in its way")
        return refund_from(row)

    async def find_refunds(self, ids: Sequence[str]) -> list[Refund | None]:
        """Return the refunds of ids, in their order."""
        async with self._pool.acquire() as connection:
            return await self._find_in(connection, ids)

    async def _find_in(self, connection: Connection, ids: Sequence[str]) -> list[Refund | None]:
        rows = await connection.fetch(QUERIES["find_refunds"], list(dict.fromkeys(ids)))
        found = {row["id"]: refund_from(row) for row in rows}
        return [found.get(refund_id) for refund_id in ids]

    async def settle(self, news: Sequence[RefundNews]) -> None:
        """Apply news of refunds; see `settle_in`."""
        async with self._pool.transaction() as connection:
            await self.settle_in(connection, news)
        self._outbox.notify()

    async def settle_in(self, connection: Connection, news: Sequence[RefundNews]) -> None:
        """Apply news of refunds in the caller's transaction, each once; repeats change nothing.

        Raises:
            ContradictionError: no such refund, another amount, or another end than it has.
        """
        rounds: list[dict[str, RefundNews]] = []
        for one in news:
            fitting = next((r for r in rounds if one.refund_id not in r), None)
            if fitting is None:
                rounds.append(fitting := {})
            fitting[one.refund_id] = one
        for of_round in rounds:
            await self._settle_round(connection, of_round)

    async def _settle_round(self, connection: Connection, news: dict[str, RefundNews]) -> None:
        now = self._clock.now()
        pieces = list(news.values())
        rows = await connection.fetch(
            QUERIES["settle_refunds"],
            list(news),
            [one.state for one in pieces],
            [one.amount.currency_code for one in pieces],
            [one.amount.amount_minor for one in pieces],
            [one.fee_returned_minor for one in pieces],
            [one.failure_reason for one in pieces],
            now,
        )
        changed = {row["id"]: row for row in rows}
        left = [one for one in pieces if one.refund_id not in changed]
        if left:
            await self._check_left(connection, left)
        if not changed:
            return
        refunds = [refund_from(row) for row in rows]
        ended = [refund for refund in refunds if refund.state in REFUND_ENDED]
        if ended:
            await connection.execute(
                QUERIES["forget_open_refunds"], [refund.id for refund in ended]
            )
        orders = await self._settle_orders(connection, refunds, ended, now)
        await add_history(
            connection, [self._move(one, changed[one.id], news[one.id], now) for one in refunds]
        )
        await self._outbox.add(
            connection,
            [
                self._announcer.refund_changed(
                    one, orders[one.order_id], now, news[one.id].cause, news[one.id].business_date
                )
                for one in refunds
            ],
        )

    async def _check_left(self, connection: Connection, left: Sequence[RefundNews]) -> None:
        """Refuse news that nothing was done with and that is no repeat."""
        found = await self._find_in(connection, [one.refund_id for one in left])
        for one, refund in zip(left, found, strict=True):
            if refund is None:
                raise ContradictionError(f"there is no refund {one.refund_id}")
            if refund.amount != one.amount:
                raise ContradictionError(f"refund {refund.id} is of {refund.amount}")
            is_over = refund.state in REFUND_ENDED
            if one.state in REFUND_ENDED and is_over and refund.state is not one.state:
                raise ContradictionError(f"refund {refund.id} is {refund.state}, not {one.state}")

    async def _settle_orders(
        self,
        connection: Connection,
        refunds: Sequence[Refund],
        ended: Sequence[Refund],
        now: datetime,
    ) -> dict[str, Order]:
        """Fold what ended into the orders; return the orders after it."""
        given: dict[str, int] = {}
        released: dict[str, int] = {refund.order_id: 0 for refund in refunds}
        for refund in ended:
            released[refund.order_id] += refund.amount_minor
            if refund.state is RefundState.COMPLETED:
                given[refund.order_id] = given.get(refund.order_id, 0) + refund.amount_minor
        rows = await connection.fetch(
            QUERIES["settle_orders_of_refunds"],
            list(released),
            [given.get(order_id, 0) for order_id in released],
            list(released.values()),
            now,
        )
        orders = {row["id"]: order_from(row) for row in rows}
        await add_history(
            connection,
            [
                HistoryRow(
                    noun="order",
                    id=order.id,
                    version=order.version,
                    from_state=order.state,
                    to_state=order.state,
                    actor=ACTOR,
                    at=now,
                    biz_trace_id=order.biz_trace_id,
                    reason=f"{given[order.id]} given back",
                )
                for order in orders.values()
                if order.id in given
            ],
        )
        return orders

    def _move(self, refund: Refund, row: Record, news: RefundNews, now: datetime) -> HistoryRow:
        return HistoryRow(
            noun="refund",
            id=refund.id,
            version=refund.version,
            from_state=row["from_state"],
            to_state=refund.state,
            actor=ACTOR,
            at=now,
            biz_trace_id=refund.biz_trace_id,
            reason=refund.failure_reason,
            cause=news.cause,
        )

    async def take_due(self, until: datetime, limit: int) -> list[tuple[str, int]]:
        """Take open refunds whose time has come, and how often that was; put off to `until`."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                QUERIES["take_due_refunds"], self._clock.now(), until, limit
            )
        # The statement answers in no order.
        return sorted((row["refund_id"], row["attempts"]) for row in rows)

    async def put_off(self, later: Sequence[tuple[str, datetime]]) -> None:
        """Look at open refunds again at the times given."""
        if later:
            async with self._pool.acquire() as connection:
                await connection.execute(
                    QUERIES["put_off_refunds"],
                    [one[0] for one in later],
                    [one[1] for one in later],
                )
