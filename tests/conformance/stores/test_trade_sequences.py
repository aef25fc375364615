"""Any sequence of operations leaves the same answers and rows of trade on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st

from common.money import Money
from services.trade.domain import Claim, Completion, RefundNews, RefundState
from tests.conformance.stores.trade_cases import IDS, START, SetClock, TradeSide
from tests.conformance.stores.twins import Twins, in_order, outcome_of, try_examples

SCHEMA = "trade"

N = st.integers(0, 3)
ANY = st.lists(N, min_size=1, max_size=4)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("insert"),
            st.lists(
                st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3)),
                min_size=1,
                max_size=4,
            ),
        ),
        st.tuples(st.just("claim"), st.lists(st.tuples(N, N), min_size=1, max_size=4)),
        st.tuples(
            st.just("complete"),
            st.lists(st.tuples(N, N, st.sampled_from([0, 0, 0, 1])), min_size=1, max_size=3),
        ),
        st.tuples(st.just("pay"), N),
        st.tuples(st.just("begin_closing"), ANY),
        st.tuples(st.just("finish_closing"), ANY),
        st.tuples(st.just("take_due"), st.integers(0, 4000)),
        st.tuples(st.just("put_off"), st.lists(st.tuples(N, st.integers(0, 9000)), max_size=3)),
        st.tuples(st.just("refund"), st.tuples(N, st.integers(1, 600), N, N)),
        st.tuples(
            st.just("settle"),
            st.lists(
                st.tuples(N, st.sampled_from(list(RefundState)[1:]), st.sampled_from([0, 0, 0, 1])),
                min_size=1,
                max_size=4,
            ),
        ),
        st.tuples(st.just("list"), st.tuples(N, st.integers(1, 3))),
        st.tuples(st.just("date"), st.integers(1, 28)),
        st.tuples(st.just("facts"), st.sampled_from(["order", "refund", "unfinished"])),
    ),
    min_size=20,
    max_size=40,
)


class Actor:
    """Does the operations on one side."""

    def __init__(self, trade: TradeSide) -> None:
        self.trade = trade
        self.written = 0
        self.refunds: list[Any] = []

    async def do(self, name: str, given: Any) -> Any:
        """Do one; return what it answers."""
        return await getattr(self, f"_{name}")(given)

    async def _insert(self, given: Sequence[tuple[int, int, int]]) -> Any:
        orders = []
        for request, number, amount in given:
            # The first orders of the case have the ids that others of its operations name.
            order = self.trade.order(self.written, request_id=f"r-{request}")
            self.written += 1
            orders.append(
                replace(order, merchant_order_no=f"n-{number}", amount_minor=500 * amount + 6)
            )
        return await self.trade.orders.insert_orders(orders)

    async def _claim(self, given: Sequence[tuple[int, int]]) -> Any:
        claims = [
            Claim(self.trade.order_id(order), self.trade.payment_id(payment), "evt_1")
            for order, payment in given
        ]
        return await self.trade.orders.claim_orders(claims)

    async def _complete(self, given: Sequence[tuple[int, int, int]]) -> Any:
        found = await self.trade.orders.find_orders([self.trade.order_id(one[0]) for one in given])
        booked = []
        for (number, payment, more), order in zip(given, found, strict=True):
            payment_id = (order and order.payment_id) or self.trade.payment_id(payment)
            amount = Money("USD", (order.amount_minor if order else 1) + more)
            booked.append(
                Completion(
                    self.trade.order_id(number), payment_id, amount, "2030-01-01", f"evt_{number}"
                )
            )
        async with self.trade.pool.transaction() as connection:
            return await self.trade.orders.complete_in(connection, booked)

    async def _pay(self, number: int) -> Any:
        claimed = await self._claim([(number, number)])
        return claimed, await self._complete([(number, number, 0)])

    async def _begin_closing(self, given: Sequence[int]) -> Any:
        ids = [self.trade.order_id(one) for one in given]
        return await self.trade.orders.begin_closing(ids, "MERCHANT:key_1", "request")

    async def _finish_closing(self, given: Sequence[int]) -> Any:
        ids = [self.trade.order_id(one) for one in given]
        return await self.trade.orders.finish_closing(ids, "request")

    async def _take_due(self, seconds: int) -> Any:
        self.trade.clock.forward(seconds)
        until = self.trade.clock.now() + timedelta(seconds=30)
        orders = await self.trade.orders.take_due(until, 100)
        return in_order(orders), in_order(await self.trade.refunds.take_due(until, 100))

    async def _put_off(self, given: Sequence[tuple[int, int]]) -> Any:
        at = [START + timedelta(seconds=seconds) for _, seconds in given]
        numbers = [number for number, _ in given]
        by_order = dict(zip(map(self.trade.order_id, numbers), at, strict=True))
        by_refund = dict(zip(map(self.trade.refund_id, numbers), at, strict=True))
        await self.trade.orders.put_off(list(by_order.items()))
        await self.trade.refunds.put_off(list(by_refund.items()))

    async def _refund(self, given: tuple[int, int, int, int]) -> Any:
        order_number, amount, request, number = given
        order = (await self.trade.orders.find_orders([self.trade.order_id(order_number)]))[0]
        if order is None:
            return None
        refund = self.trade.refund(
            len(self.refunds),
            order,
            amount_minor=amount,
            request_id=f"r-{request}",
            merchant_refund_no=f"n-{number}",
        )
        self.refunds.append(refund)
        return await self.trade.refunds.insert_refund(refund, START + timedelta(seconds=amount))

    async def _settle(self, given: Sequence[tuple[int, RefundState, int]]) -> Any:
        news = []
        for number, state, more in given:
            amount = self.refunds[number].amount_minor if number < len(self.refunds) else 1
            money = Money("USD", amount + more)
            news.append(RefundNews(self.trade.refund_id(number), state, money, 0, cause="evt_2"))
        return await self.trade.refunds.settle(news)

    async def _list(self, given: tuple[int, int]) -> Any:
        before, limit = given
        return await self.trade.orders.list_orders(
            "mer_1", "default", "TEST", self.trade.order_id(before), "", limit
        )

    async def _date(self, day: int) -> Any:
        await self.trade.orders.keep_business_date("default", "TEST", f"2030-01-{day:02}")
        return await self.trade.orders.find_business_date("default", "TEST")

    async def _facts(self, kind: str) -> Any:
        rows = await self.trade.facts.list_facts(kind, "default", "TEST", "", 100)
        # Ids of events are told in the order of the database's collation.
        return in_order([dict(row.items()) for row in rows])


async def test_any_operations_leave_the_same_answers_and_rows(twins: Twins) -> None:
    async def compare(operations: list[tuple[str, Any]]) -> None:
        await twins.clear()
        parent = IDS.new("tst")
        actors = [Actor(TradeSide(side, SetClock(), parent)) for side in twins.sides]
        # Something to work on from the beginning.
        first = [("insert", [(number + 5, number + 5, number % 3) for number in range(4)])]
        for name, given in [*first, *operations]:
            real, model = [await outcome_of(actor.do(name, given)) for actor in actors]
            assert real == model, name
        await twins.compare_rows()

    await try_examples(OPERATIONS, compare)
