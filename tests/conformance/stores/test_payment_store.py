"""Payments, refunds and exceptions are kept alike on PostgreSQL and on the model."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from common.audit import find_break
from common.ids import channel_reference
from services.payment.domain.exceptions import Action, ExceptionKind, ExceptionState
from services.payment.domain.payments import Failure, NextAction, Payment, Refund, WayOut
from services.payment.domain.states import PaymentState, RefundState
from services.payment.store.exceptions import ExceptionPage
from services.payment.store.rows import ADVANCE_PAYMENT, ADVANCE_REFUND
from tests.conformance.stores.payment_cases import CALL, PaymentSide
from tests.conformance.stores.trade_cases import START
from tests.conformance.stores.twins import Side

SCHEMA = "payment"
P, R = PaymentState, RefundState


@pytest.fixture
def payments(side: Side) -> PaymentSide:
    """The payment service's stores on one side."""
    return PaymentSide(side)


async def written(payments: PaymentSide, number: int = 1) -> Payment:
    await payments.payments.record_intents([payments.intent(payments.payment(number))])
    return await found(payments, number)


async def found(payments: PaymentSide, number: int = 1) -> Payment:
    payment = await payments.payments.find_payment(payments.payment_id(number))
    assert payment is not None
    return payment


async def id_of_reference(payments: PaymentSide, reference: str) -> str | None:
    async with payments.pool.acquire() as connection:
        payment = await payments.payments.find_payment_of_reference(connection, reference)
    return payment.id if payment else None


async def succeeded(payments: PaymentSide, number: int = 1) -> Payment:
    change = payments.change(await written(payments, number), P.RECEIVED, P.SUCCEEDED)
    assert await payments.payments.save_changes([change]) == [True]
    return await found(payments, number)


async def test_an_intent_is_written_once_with_all_it_tells(payments: PaymentSide) -> None:
    payment = payments.payment(1, next_action=NextAction("show_qr", "code"))
    blocked = payments.payment(2, state=P.FAILED, failure=Failure("RISK_BLOCKED"), channel="")
    internal = payments.payment(3, channel="balance")
    intents = [payments.intent(one) for one in (payment, blocked, internal, payment)]
    answers = await payments.payments.record_intents(intents)
    assert answers[:3] == [None, None, None]
    assert answers[3] == replace(payment, updated_at=payment.created_at)
    again = await payments.payments.record_intents(intents[:1])
    assert again[0] is not None
    assert again[0].id == payment.id
    rows = await payments.side.dump()
    assert [(row["reference"], row["channel"]) for row in rows["attempts"]] == [
        (channel_reference(payment.attempt_id), "alipay")
    ]
    assert {row["key"] for row in rows["jobs"]} == {payment.id, internal.id}
    assert [row["type"] for row in rows["outbox"]] == ["payment.payment.failed.v1"]
    assert len(rows["history"]) == 3
    reference = channel_reference(payment.attempt_id)
    assert await id_of_reference(payments, reference) == payment.id
    assert await id_of_reference(payments, "no") is None


async def test_a_change_wins_only_from_the_version_that_was_read(payments: PaymentSide) -> None:
    before, other = await written(payments, 1), await written(payments, 2)
    changes = [
        payments.change(before, P.RECEIVED, P.SUCCEEDED),
        payments.change(replace(other, version=7), P.FAILED),
        payments.change(other, P.UNKNOWN, next_question_at=START + timedelta(hours=1)),
    ]
    assert await payments.payments.save_changes(changes) == [True, False, True]
    assert await payments.payments.save_changes(changes) == [False, False, False]
    assert [(await found(payments, n)).state for n in (1, 2)] == [P.SUCCEEDED, P.UNKNOWN]
    rows = await payments.side.dump()
    jobs = {row["key"]: row["state"] for row in rows["jobs"]}
    assert jobs == {before.id: "CANCELLED", other.id: "OPEN"}
    moves = [row["to_state"] for row in rows["history"] if row["id"] == before.id]
    assert moves == ["PENDING", "RECEIVED", "SUCCEEDED"]


async def test_a_return_keeps_its_way_out_and_counts_what_comes_late(payments: PaymentSide) -> None:
    """Late news finds its job, though the payment had ended before."""
    before = await written(payments)
    for path, changes in (
        ((P.RECEIVED, P.RETURNING), {}),
        ((), {"way_out": WayOut.UNCLAIM}),
        ((P.UNCLAIMED,), {}),
        ((P.RETURNED,), {"next_question_at": START + timedelta(hours=1)}),
        ((), {"late_returns": 1}),
    ):
        change = payments.change(before, *path, **changes)  # type: ignore[arg-type]
        assert await payments.payments.save_changes([change]) == [True]
        before = await found(payments)
    assert (before.state, before.way_out, before.late_returns) == (P.RETURNED, WayOut.UNCLAIM, 1)
    rows = await payments.side.dump()
    assert {row["state"] for row in rows["jobs"]} == {"CANCELLED", "OPEN"}
    (fact,) = await payments.reading.list_rows("list_payment_facts", "", 10)
    assert (fact["way_out"], fact["late_returns"]) == ("UNCLAIM", 1)


@pytest.mark.parametrize("others", [0, 30])
async def test_of_two_changes_in_one_batch_the_first_is_written(
    payments: PaymentSide, others: int
) -> None:
    """Row, history, events and answers are of one and the same change."""
    before = await written(payments)
    await asyncio.gather(*(written(payments, number) for number in range(2, others + 2)))
    changes = [
        payments.change(before, P.RECEIVED, P.SUCCEEDED),
        payments.change(before, P.FAILED),
        payments.change(replace(before, version=3, state=P.RECEIVED), P.RETURNING),
    ]
    assert await payments.payments.save_changes(changes) == [True, False, False]
    assert (await found(payments)).state is P.SUCCEEDED
    late = await found(payments)
    changes = [
        payments.change(replace(late, version=1, state=P.PENDING), P.FAILED),
        payments.change(late),
    ]
    assert await payments.payments.save_changes(changes) == [False, True]


async def test_another_attempt_gets_a_reference_of_its_own(payments: PaymentSide) -> None:
    before = await written(payments)
    change = payments.change(before, channel="unionpay", attempt=2)
    assert await payments.payments.save_changes([change]) == [True]
    after = await found(payments)
    assert (after.channel, after.attempt, after.version) == ("unionpay", 2, 2)
    for payment in (before, after):
        reference = channel_reference(payment.attempt_id)
        assert await id_of_reference(payments, reference) == before.id


async def test_payments_of_an_order_come_oldest_first(payments: PaymentSide) -> None:
    for number in (7, 1, 4, 2):
        await written(payments, number)
    ids = [
        one.id
        for one in await payments.payments.find_payments_of_order(payments.payment(1).order_id)
    ]
    assert ids == [payments.payment_id(number) for number in (1, 4, 7)]


async def test_a_question_is_hastened_while_it_is_open(payments: PaymentSide) -> None:
    payment = await written(payments)
    await payments.payments.hasten(ADVANCE_PAYMENT, payment.id)
    rows = await payments.side.dump()
    assert [row["is_hastened"] for row in rows["jobs"]] == [True]


async def test_refunds_take_the_cap_and_their_fee(payments: PaymentSide) -> None:
    await succeeded(payments)
    first = payments.refund(1, 1, 600)
    opened = await payments.refunds.open_refund(first, CALL, START)
    assert opened is not None
    payment, refund, is_new = opened
    assert (is_new, refund.fee_returned_minor, payment.refunding_minor) == (True, 4, 0)
    again = await payments.refunds.open_refund(first, CALL, START)
    assert again is not None
    assert (again[1].id, again[1].fee_returned_minor, again[2]) == (first.id, 4, False)
    assert again[0].refundable_minor == 400
    too_much = await payments.refunds.open_refund(payments.refund(2, 1, 401), CALL, START)
    assert too_much is not None
    assert (too_much[1], too_much[2]) == (payments.refund(2, 1, 401), False)
    assert await payments.refunds.find_refund(payments.refund_id(2)) is None
    assert await payments.refunds.open_refund(payments.refund(3, 9), CALL, START) is None
    outcomes = await asyncio.gather(
        *(
            payments.refunds.open_refund(payments.refund(n, 1, 150), CALL, START)
            for n in range(4, 9)
        )
    )
    assert sum(one[2] for one in outcomes if one is not None) == 2


@pytest.mark.parametrize(("end", "refunded"), [(R.SUCCEEDED, 300), (R.FAILED, 0)])
async def test_a_refund_that_ends_gives_its_part_back_or_free(
    payments: PaymentSide, end: RefundState, refunded: int
) -> None:
    await succeeded(payments)
    opened = await payments.refunds.open_refund(payments.refund(1, 1, 300), CALL, START)
    assert opened is not None
    held = payments.refund_change(opened[1], R.HELD)
    assert await payments.refunds.save_refund(held)
    assert not await payments.refunds.save_refund(held)
    ended = payments.refund_change(held.after, end)
    assert await payments.refunds.save_refund(ended)
    payment = await found(payments)
    assert (payment.refunded_minor, payment.refunding_minor) == (refunded, 0)
    assert payment.fee_given_back_minor == (2 if refunded else 0)
    refund = await payments.refunds.find_refund(payments.refund_id(1))
    assert isinstance(refund, Refund)
    assert (refund.state, refund.version) == (end, 3)
    rows = await payments.side.dump()
    jobs = {row["key"]: row["state"] for row in rows["jobs"]}
    assert jobs[refund.id] == "CANCELLED"


async def test_a_refund_that_has_ended_is_asked_on_about_where_that_is_said(
    payments: PaymentSide,
) -> None:
    await succeeded(payments)
    opened = await payments.refunds.open_refund(payments.refund(1, 1, 300), CALL, START)
    assert opened is not None
    later = START + timedelta(hours=1)
    ended = payments.refund_change(opened[1], R.FAILED)
    assert await payments.refunds.save_refund(replace(ended, next_question_at=later))
    jobs = [row for row in (await payments.side.dump())["jobs"] if row["kind"] == ADVANCE_REFUND]
    assert sorted(row["state"] for row in jobs) == ["CANCELLED", "OPEN"]


async def test_an_exception_is_opened_once_and_ends_with_its_subject(
    payments: PaymentSide,
) -> None:
    payment = await written(payments)
    unknown = payments.exception(payment, ExceptionKind.OUTCOME_UNKNOWN)
    refused = payments.exception(payment, ExceptionKind.LEDGER_REFUSED)
    contradicted = payments.exception(payment, ExceptionKind.CALLBACK_CONTRADICTION)
    for _ in range(2):
        await payments.exceptions.open_exceptions([unknown, contradicted], CALL, START)
    opening = payments.change(payment, P.UNKNOWN, opens=(refused,))
    assert await payments.payments.save_changes([opening]) == [True]
    assert (await payments.exceptions.find_exception(unknown.id)) == unknown
    ending = payments.change(opening.after, P.FAILED)
    assert await payments.payments.save_changes([ending]) == [True]
    states = {}
    for one in (unknown, refused, contradicted):
        now = await payments.exceptions.find_exception(one.id)
        states[one.kind] = now and now.state
    assert states == {
        ExceptionKind.OUTCOME_UNKNOWN: ExceptionState.RESOLVED,
        ExceptionKind.LEDGER_REFUSED: ExceptionState.RESOLVED,
        ExceptionKind.CALLBACK_CONTRADICTION: ExceptionState.OPEN,
    }
    rows = await payments.side.dump()
    types = sorted(row["type"] for row in rows["outbox"] if "exception" in row["type"])
    assert types == ["payment.exception.opened.v1"] * 3 + ["payment.exception.resolved.v1"] * 2


async def test_a_person_moves_an_exception_from_what_it_was(
    payments: PaymentSide, side: Side
) -> None:
    payment = await written(payments)
    opened = payments.exception(payment, ExceptionKind.OUTCOME_UNKNOWN)
    await payments.exceptions.open_exceptions([opened], CALL, START)
    proposed = opened.moved(
        ExceptionState.PROPOSED, START, action=Action.FAIL, maker="OPERATOR:a", maker_reason="m"
    )
    move = payments.move(opened, proposed)
    assert await payments.exceptions.save_exception(move)
    assert not await payments.exceptions.save_exception(move)
    approved = proposed.moved(
        ExceptionState.APPROVED, START, checker="OPERATOR:b", checker_reason="c"
    )
    assert await payments.exceptions.save_exception(
        payments.move(proposed, approved, hastens=proposed.payment_id)
    )
    rows = await side.dump()
    assert [row["position"] for row in rows["audit"]] == [1, 2]
    assert {row["kind"]: row["is_hastened"] for row in rows["jobs"]} == {
        "payment.advance": True,
        "payment.exception": True,
    }
    async with side.pool.acquire() as connection:
        assert await find_break(connection) is None
    self_checked = replace(approved, version=4, checker="OPERATOR:a")
    with pytest.raises(Exception, match="maker_is_never_the_checker"):
        await payments.exceptions.save_exception(payments.move(approved, self_checked))


async def test_exceptions_are_pages_by_deadline(payments: PaymentSide) -> None:
    payment = await written(payments)
    made = []
    for number in range(4):
        payments.clock.forward(60)
        made.append(payments.exception(payment, ExceptionKind.OUTCOME_UNKNOWN, f"{number}"))
    other = payments.exception(payment, ExceptionKind.LEDGER_REFUSED)
    await payments.exceptions.open_exceptions([*made, other], CALL, START)
    resolved = made[1].resolved("done", START)
    await payments.exceptions.save_exception(payments.move(made[1], resolved))
    page = ExceptionPage("default", "TEST", "OUTCOME_UNKNOWN", False, (START, ""), 2)
    first = await payments.exceptions.list_exceptions(page)
    rest = await payments.exceptions.list_exceptions(
        replace(page, after=(first[-1].due_at, first[-1].id))
    )
    assert [one.id for one in (*first, *rest)] == [made[n].id for n in (0, 2, 3)]
    all_kinds = replace(page, kind="", include_resolved=True, limit=9)
    assert len(await payments.exceptions.list_exceptions(all_kinds)) == 5
    assert await payments.exceptions.list_exceptions(replace(page, mode="LIVE")) == []


async def test_lists_for_audits_are_pages_in_the_order_of_ids(payments: PaymentSide) -> None:
    payment = await succeeded(payments, 1)
    unknown = payments.change(await written(payments, 2), P.UNKNOWN)
    await payments.payments.save_changes([unknown])
    await payments.payments.save_changes([payments.change(unknown.after, P.FAILED)])
    await payments.refunds.open_refund(payments.refund(1, 1), CALL, START)
    opened = payments.exception(payment, ExceptionKind.OUTCOME_UNKNOWN)
    await payments.exceptions.open_exceptions([opened], CALL, START)
    expected = {
        "list_payment_facts": sorted(map(payments.payment_id, (1, 2))),
        "list_refund_facts": [payments.refund_id(1)],
        "list_exception_facts": [opened.id],
        "list_recovered_facts": [payments.payment_id(2)],
    }
    for query, ids in expected.items():
        rows = await payments.reading.list_rows(query, "", 1)
        rows += await payments.reading.list_rows(query, rows[-1]["id"], 9)
        assert [row["id"] for row in rows] == ids, query
    unfinished = await payments.reading.list_rows("list_unfinished", "", 99)
    assert sorted({row["noun"] for row in unfinished}) == ["event", "exception", "job", "refund"]
