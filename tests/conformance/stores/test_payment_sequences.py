"""Any sequence of operations leaves the same answers and rows of payment on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from services.payment.domain.exceptions import ACTIONS, ExceptionKind, ExceptionState
from services.payment.domain.payments import Payment, Refund
from services.payment.domain.states import PAYMENT_MOVES, REFUND_MOVES, PaymentState
from services.payment.store.exceptions import ExceptionPage
from services.payment.store.rows import ADVANCE_PAYMENT
from tests.conformance.stores.payment_cases import CALL, PaymentSide
from tests.conformance.stores.trade_cases import IDS, START, SetClock
from tests.conformance.stores.twins import Twins, outcome_of, try_examples

SCHEMA = "payment"

N = st.integers(0, 3)
SOME = st.integers(0, 30)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("intents"), st.lists(N, min_size=1, max_size=4)),
        st.tuples(
            st.just("changes"),
            st.lists(st.tuples(N, SOME, st.integers(0, 2)), min_size=1, max_size=4),
        ),
        st.tuples(st.just("succeed"), N),
        st.tuples(st.just("refund"), st.tuples(N, N, st.integers(1, 700))),
        st.tuples(st.just("move_refund"), st.tuples(N, SOME)),
        st.tuples(
            st.just("open"), st.tuples(N, st.sampled_from(list(ExceptionKind)), st.integers(0, 1))
        ),
        st.tuples(st.just("move"), st.tuples(N, SOME)),
        st.tuples(st.just("hasten"), N),
        st.tuples(st.just("list"), st.integers(1, 9)),
    ),
    min_size=20,
    max_size=40,
)
LISTS = (
    "list_payment_facts",
    "list_refund_facts",
    "list_exception_facts",
    "list_recovered_facts",
)


class Actor:
    """Does the operations on one side."""

    def __init__(self, payments: PaymentSide) -> None:
        self.payments = payments
        self.seen: dict[int, list[Payment]] = {}
        self.opened: list[str] = []

    async def do(self, name: str, given: Any) -> Any:
        """Do one; return what it answers."""
        self.payments.clock.forward(1)
        return await getattr(self, f"_{name}")(given)

    async def _intents(self, numbers: Sequence[int]) -> Any:
        intents = [
            self.payments.intent(
                self.payments.payment(n, channel="" if n == 0 else "alipay", fee_minor=100 * n)
            )
            for n in numbers
        ]
        return await self.payments.payments.record_intents(intents)

    async def _changes(self, given: Sequence[tuple[int, int, int]]) -> Any:
        changes = []
        for number, choice, age in given:
            payment = await self.payments.payments.find_payment(self.payments.payment_id(number))
            if payment is None:
                continue
            seen = self.seen.setdefault(number, [])
            seen.append(payment)
            before = seen[-min(age, len(seen) - 1) - 1]
            moves = sorted(PAYMENT_MOVES[before.state])
            if moves and choice % 4:
                path = (moves[choice % len(moves)],)
                changes.append(self.payments.change(before, *path, next_question_at=None))
            else:
                attempt = before.attempt + choice % 2
                changes.append(
                    self.payments.change(before, attempt=attempt, next_question_at=START)
                )
        return await self.payments.payments.save_changes(changes) if changes else None

    async def _succeed(self, number: int) -> Any:
        payment = await self.payments.payments.find_payment(self.payments.payment_id(number))
        if payment is None or PaymentState.RECEIVED not in PAYMENT_MOVES[payment.state]:
            return None
        change = self.payments.change(payment, PaymentState.RECEIVED, PaymentState.SUCCEEDED)
        return await self.payments.payments.save_changes([change])

    async def _refund(self, given: tuple[int, int, int]) -> Any:
        number, payment, amount = given
        draft = self.payments.refund(number, payment, amount)
        return await self.payments.refunds.open_refund(draft, CALL, START)

    async def _move_refund(self, given: tuple[int, int]) -> Any:
        number, choice = given
        refund = await self.payments.refunds.find_refund(self.payments.refund_id(number))
        if not isinstance(refund, Refund) or not (moves := sorted(REFUND_MOVES[refund.state])):
            return None
        change = self.payments.refund_change(refund, moves[choice % len(moves)])
        return await self.payments.refunds.save_refund(change)

    async def _open(self, given: tuple[int, ExceptionKind, int]) -> Any:
        number, kind, occasion = given
        payment = await self.payments.payments.find_payment(self.payments.payment_id(number))
        if payment is not None:
            one = self.payments.exception(payment, kind, f"{occasion}")
            self.opened.append(one.id)
            await self.payments.exceptions.open_exceptions([one], CALL, self.payments.clock.now())

    async def _move(self, given: tuple[int, int]) -> Any:
        place, choice = given
        if place >= len(self.opened):
            return None
        before = await self.payments.exceptions.find_exception(self.opened[place])
        assert before is not None
        now = self.payments.clock.now()
        if before.state is ExceptionState.OPEN:
            action = ACTIONS[before.kind][0]
            after = before.moved(
                ExceptionState.PROPOSED, now, action=action, maker=f"OPERATOR:{choice % 2}"
            )
        elif before.state is ExceptionState.PROPOSED:
            after = before.moved(ExceptionState.APPROVED, now, checker=f"OPERATOR:{choice % 3}")
        elif before.state is ExceptionState.APPROVED:
            after = before.resolved("done", now)
        else:
            return None
        move = self.payments.move(
            before, after, hastens=before.payment_id if choice % 2 == 0 else ""
        )
        return await self.payments.exceptions.save_exception(move)

    async def _hasten(self, number: int) -> Any:
        payment_id = self.payments.payment_id(number)
        return await self.payments.payments.hasten(ADVANCE_PAYMENT, payment_id)

    async def _list(self, limit: int) -> Any:
        page = ExceptionPage("default", "TEST", "", limit % 2 == 0, (START, ""), limit)
        answers: list[Any] = [await self.payments.exceptions.list_exceptions(page)]
        order = self.payments.payment(limit).order_id
        answers.append(await self.payments.payments.find_payments_of_order(order))
        for query in LISTS:
            rows = await self.payments.reading.list_rows(query, "", limit)
            answers.append([dict(row.items()) for row in rows])
        return answers


async def test_any_operations_leave_the_same_answers_and_rows(twins: Twins) -> None:
    async def compare(operations: list[tuple[str, Any]]) -> None:
        await twins.clear()
        parent = IDS.new("tst")
        actors = [Actor(PaymentSide(side, SetClock(), parent)) for side in twins.sides]
        # Something to work on from the beginning.
        first: list[tuple[str, Any]] = [("intents", [0, 1, 2, 3]), ("succeed", 1), ("succeed", 2)]
        for name, given in [*first, *operations]:
            real, model = [await outcome_of(actor.do(name, given)) for actor in actors]
            assert real == model, name
        await twins.compare_rows()

    await try_examples(OPERATIONS, compare)
