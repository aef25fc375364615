"""Each kind of exception: how it comes about, and how it ends when somebody decides or nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest
from desk_kit import Desk, call_of_person, new_case, refused_return
from flow_cases import (
    AMOUNT,
    REFUND,
    channel_gives_back,
    claim_is_lost,
    conflicted,
    go_on,
    go_on_giving_back,
    paid,
    refund_is_refused,
    waits_for_the_payer,
)
from hosted_services import heard
from payment_kit import DUE_SECONDS, UNKNOWN_SECONDS, Crash, Fault, PaymentKit
from paymesh.channel.v1 import CallbackQuestioned
from paymesh.payment.v1 import (
    EXCEPTION_STATE_APPROVED,
    EXCEPTION_STATE_RESOLVED,
    ListFactsRequest,
    PaymentServiceStub,
)
from paymesh.type.v1 import Money

from common.context import ActorType, Principal, bound
from common.errors import RemoteError
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.ids import channel_reference
from common.jobs.jobs import Jobs
from services.payment.events import Announcements, ChannelNews
from services.payment.flows.desk import decide_resolution
from services.payment.store.exceptions import ExceptionStore


async def test_what_nobody_decides_the_deadline_does(payment: PaymentKit, desk: Desk) -> None:
    case = await new_case(payment, "quick_pay")
    await conflicted("USD", 900)(case)
    one = await desk.get((await case.exception())["id"])
    assert (one.kind, one.default_action) == ("AMOUNT_MISMATCH", "RETURN")
    await payment.run_due(1)
    one = await desk.get(one.id)
    assert (one.state, one.maker, one.checker) == (
        EXCEPTION_STATE_RESOLVED,
        "SERVICE:payment",
        "",
    )
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "RETURNED"


async def test_what_ends_by_itself_is_resolved_with_it(payment: PaymentKit, desk: Desk) -> None:
    """Nobody knew for long; then the channel answered, before anybody decided."""
    case = await new_case(payment, "quick_pay")
    await paid(case)
    payment.bank.is_silent = True
    await case.give_back(payment.parts())
    await payment.run_due(UNKNOWN_SECONDS + 60)
    found = await case.exception()
    assert (found["kind"], found["state"]) == ("OUTCOME_UNKNOWN", "OPEN")
    # Its deadline asks once more, in vain, and it waits for longer.
    await payment.run_due(DUE_SECONDS + 1)
    found = await case.exception()
    assert (found["state"], found["repeats"]) == ("OPEN", 1)
    payment.bank.is_silent = False
    await go_on_giving_back(case, payment.parts())
    one = await desk.get(found["id"])
    assert (one.state, one.resolution[:15]) == (EXCEPTION_STATE_RESOLVED, "ended by itself")
    await payment.check_everything()


async def test_waiting_for_a_payer_is_no_exception(payment: PaymentKit) -> None:
    case = await new_case(payment)
    await waits_for_the_payer(case)
    await payment.run_due(UNKNOWN_SECONDS + 60)
    assert await payment.exceptions(case.payment_id) == []
    payment.bank.scanned = True
    await payment.bring_to_rest()


async def test_a_refund_that_came_after_its_failure_is_told_once(
    payment: PaymentKit, desk: Desk
) -> None:
    """Nobody is charged and no cap moves: the loss is booked, and a person takes note."""
    case = await new_case(payment, "quick_pay")
    await refund_is_refused(case)
    merchant = await payment.balance(payment.merchant_id, "merchant_pending")
    loss = await payment.balance("platform", "loss")
    await channel_gives_back(case)
    await payment.run_due()
    await payment.hear_of_refund(case.refund_id)
    await payment.run_due()
    (found,) = await payment.exceptions(case.refund_id)
    assert (found["kind"], found["state"]) == ("REFUND_AFTER_FAILURE", "OPEN")
    assert await payment.balance(payment.merchant_id, "merchant_pending") == merchant
    assert abs(await payment.balance("platform", "loss") - loss) == REFUND
    one = await desk.get(found["id"])
    assert (list(one.actions), one.amount.amount_minor) == (["ACKNOWLEDGE"], REFUND)
    one = await desk.decide(await desk.propose(one, "ACKNOWLEDGE"))
    assert (one.state, one.resolution) == (EXCEPTION_STATE_RESOLVED, "acknowledged")
    await payment.check_everything()


async def test_late_news_of_a_refund_are_not_lost_while_nobody_answers(
    payment: PaymentKit,
) -> None:
    case = await new_case(payment, "quick_pay")
    await refund_is_refused(case)
    await channel_gives_back(case)
    payment.bank.is_silent = True
    await payment.run_due()
    assert "refund.late" not in await payment.movements(case.refund_id)
    payment.bank.is_silent = False
    await payment.bring_to_rest()
    assert (await payment.movements(case.refund_id))["refund.late"] == [REFUND]
    await payment.check_everything()


async def test_money_that_has_come_cannot_be_let_fail(payment: PaymentKit, desk: Desk) -> None:
    case = await new_case(payment)
    await claim_is_lost(case)
    payment.bank.is_silent = True
    await go_on(case, payment.parts())
    await payment.run_due(UNKNOWN_SECONDS + 60)
    one = await desk.get((await case.exception())["id"])
    assert one.kind == "OUTCOME_UNKNOWN"
    with pytest.raises(RemoteError) as caught:
        await desk.propose(one, "FAIL")
    assert caught.value.remote_reason == "STATE_CONFLICT"
    payment.bank.is_silent = False
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_a_booking_that_the_ledger_refuses_is_tried_again_under_other_ids(
    payment: PaymentKit, desk: Desk
) -> None:
    """The refusal has burned the ids; the payment is no silent CONFLICTED, and ends."""
    before = await new_case(payment, "quick_pay")
    await conflicted("JPY", 500)(before)  # opens the accounts of that currency
    await payment.bring_to_rest()
    case = await new_case(payment, "quick_pay")
    await _freeze(payment, "suspense", "JPY", "CREDIT_FROZEN")
    payment.bank.takes = Money(currency_code="JPY", amount_minor=700)
    made = await case.pay(payment.parts())
    assert made.state == "PENDING"
    one = await desk.get((await case.exception())["id"])
    assert (one.kind, list(one.actions)) == ("LEDGER_REFUSED", ["RETRY"])
    assert "conflict" in one.detail
    # The same answer under other ids: the first exception is done, another one has its place.
    await payment.run_due(DUE_SECONDS + 1)
    kinds = [(e["kind"], e["state"]) for e in await payment.exceptions(case.payment_id)]
    assert kinds == [("LEDGER_REFUSED", "RESOLVED"), ("LEDGER_REFUSED", "OPEN")]
    await _freeze(payment, "suspense", "JPY", "NORMAL")
    await payment.bring_to_rest()
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "RETURNED"
    assert await payment.movements(case.payment_id) == {
        "payment.conflict": [700],
        "payment.conflict_return": [700],
    }
    assert await payment.balance("platform", "suspense", "JPY") == 0
    await payment.check_everything()


async def test_a_late_refund_that_the_ledger_refuses_is_booked_in_the_end(
    payment: PaymentKit,
) -> None:
    """Under the next ids, once; and what had ended does not free its cap a second time."""
    await payment.open_account("platform", "loss", "USD")
    case = await new_case(payment, "quick_pay")
    await refund_is_refused(case)
    await channel_gives_back(case)
    await _freeze(payment, "loss", "USD", "DEBIT_FROZEN")
    await payment.run_due()
    await payment.run_due(DUE_SECONDS + 1)
    kinds = [(e["kind"], e["state"]) for e in await payment.exceptions(case.refund_id)]
    assert kinds == [("LEDGER_REFUSED", "RESOLVED"), ("LEDGER_REFUSED", "OPEN")]
    await _freeze(payment, "loss", "USD", "NORMAL")
    await payment.bring_to_rest()
    assert (await payment.movements(case.refund_id))["refund.late"] == [REFUND]
    told = {e["kind"] for e in await payment.exceptions(case.refund_id)}
    assert told == {"LEDGER_REFUSED", "REFUND_AFTER_FAILURE"}
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert (found.refunded_minor, found.refunding_minor) == (0, 0)
    await payment.check_everything()


async def _freeze(payment: PaymentKit, kind: str, currency: str, status: str) -> None:
    async with payment.kit.pools["account"].acquire() as connection:
        await connection.execute(
            "UPDATE accounts SET status = $1 WHERE id = $2",
            status,
            payment.account("platform", kind, currency),
        )


async def _question(
    payment: PaymentKit,
    verdict: str,
    payment_id: str,
    *,
    named: str = "",
    reference: str = "att00000000",
) -> str:
    """Let payment hear of a questioned callback, twice; return the callback's id."""
    pool = payment.kit.pools["payment"]
    jobs, outbox = Jobs(), Outbox()
    exceptions = ExceptionStore(pool, outbox, jobs, Announcements())
    parts = payment.parts()
    news = ChannelNews(
        jobs, exceptions, parts.store, parts.refunds, parts.deadlines, payment.kit.clock
    )
    callback_id = payment.kit.ids.new("cbk")
    told = CallbackQuestioned(
        callback_id=callback_id,
        channel="alipay_a",
        verdict=verdict,
        reference=reference,
        payment_reference=named,
        subject_id=payment_id,
        told_state="FAILED",
        money=Money(currency_code="USD", amount_minor=AMOUNT),
    )
    event = NewEvent(
        event_id=payment.kit.ids.new("evt"),
        type="channel.callback.questioned.v1",
        aggregate_id=callback_id,
        aggregate_version=1,
        payload=told.SerializeToString(),
        # Channels have no world of their own: what belongs to no row is told as of the default one.
        principal=(
            Principal(actor_type=ActorType.CHANNEL, actor_id="alipay_a")
            if verdict == "ORPHAN"
            else replace(payment.call().principal, merchant_id="")
        ),
        occurred_at=payment.kit.clock.now(),
    )
    consumer = payment.kit.consumer("payment", "payment.channel", news.handle)
    await consumer.handle([heard(event)])
    await consumer.handle([heard(event)])
    return callback_id


@pytest.mark.parametrize("finding", ["REFUTED", "NOTHING_THERE"])
@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ("ORPHAN", "CALLBACK_UNKNOWN_REFERENCE"),
        ("CONTRADICTED", "CALLBACK_CONTRADICTION"),
    ],
)
async def test_a_questioned_callback_is_examined_at_its_deadline(
    payment: PaymentKit, verdict: str, kind: str, finding: str
) -> None:
    payment.bank.behave()
    callback_id = await _question(payment, verdict, "")
    (found,) = await payment.exceptions(callback_id)
    assert (found["kind"], found["state"], found["default_action"]) == (kind, "OPEN", "ASK")
    payment.bank.finding = finding
    await payment.run_due(DUE_SECONDS + 1)
    (found,) = await payment.exceptions(callback_id)
    assert (found["state"], found["resolution"]) == ("RESOLVED", f"{finding}: asked")


@pytest.mark.parametrize("kind", ["refund", "payment"])
async def test_an_orphan_that_names_a_payment_is_in_that_payments_world(
    payment: PaymentKit, desk: Desk, kind: str
) -> None:
    """Somebody gave money back at the channel's own desk; or it tells of another's reference."""
    case = await new_case(payment, "quick_pay")
    made = await case.pay(payment.parts())
    reference = channel_reference(made.attempt_id)
    if kind == "refund":
        callback_id = await _question(payment, "ORPHAN", "", named=reference)
    else:
        callback_id = await _question(payment, "ORPHAN", "", reference=reference)
    one = await desk.get((await payment.exceptions(callback_id))[0]["id"])
    assert (one.kind, one.payment_id) == ("CALLBACK_UNKNOWN_REFERENCE", case.payment_id)
    assert one.biz_trace_id == made.biz_trace_id
    assert one.detail.endswith(f"though it names {case.payment_id}")
    (row,) = await payment.kit.rows(
        "payment", "SELECT tenant_id, mode, merchant_id FROM exceptions WHERE id = $1", one.id
    )
    assert tuple(row.values()) == ("default", "TEST", payment.merchant_id)
    (told,) = await payment.kit.rows(
        "payment", "SELECT mode, merchant_id FROM outbox WHERE aggregate_id = $1", one.id
    )
    assert tuple(told.values()) == ("TEST", payment.merchant_id)
    payment.bank.finding = "NOTHING_THERE"
    await payment.bring_to_rest()


async def test_an_orphan_that_names_nothing_is_in_the_default_world(payment: PaymentKit) -> None:
    callback_id = await _question(payment, "ORPHAN", "")
    (row,) = await payment.kit.rows(
        "payment",
        "SELECT tenant_id, mode, merchant_id, payment_id FROM exceptions WHERE subject_id = $1",
        callback_id,
    )
    assert tuple(row.values()) == ("default", "LIVE", "", "")
    payment.bank.finding = "NOTHING_THERE"
    await payment.bring_to_rest()


async def test_a_callback_that_stands_stays_open_and_its_payment_is_asked_about(
    payment: PaymentKit, desk: Desk
) -> None:
    case = await new_case(payment)
    await waits_for_the_payer(case)
    callback_id = await _question(payment, "CONTRADICTED", case.payment_id)
    payment.bank.finding = "STANDS"
    payment.bank.scanned = True
    await payment.run_due(DUE_SECONDS + 1)
    (found,) = await payment.exceptions(callback_id)
    assert (found["state"], found["repeats"], found["detail"]) == ("OPEN", 1, "STANDS: asked")
    paid_now = await payment.parts().store.find_payment(case.payment_id)
    assert paid_now is not None
    assert paid_now.state == "SUCCEEDED"
    one = await desk.get(found["id"])
    one = await desk.decide(await desk.propose(one, "DISMISS"))
    assert (one.state, one.resolution) == (EXCEPTION_STATE_RESOLVED, "dismissed")
    await payment.bring_to_rest()


async def test_a_callback_about_a_refund_that_stands_makes_the_refund_be_asked_about(
    payment: PaymentKit,
) -> None:
    case = await new_case(payment, "quick_pay")
    await paid(case)
    payment.bank.takes_time = True
    await case.give_back(payment.parts())
    await payment.run_due(600)  # its own next question is ten minutes away
    callback_id = await _question(payment, "CONTRADICTED", case.refund_id)
    payment.bank.takes_time = False
    payment.bank.finding, payment.bank.examined = "STANDS", case.refund_id
    await payment.run_due(DUE_SECONDS + 1)
    (found,) = await payment.exceptions(callback_id)
    assert (found["state"], found["detail"]) == ("OPEN", "STANDS: asked")
    refund = await payment.parts().refunds.find_refund(case.refund_id)
    assert refund is not None
    assert refund.state == "SUCCEEDED"
    payment.bank.finding = "REFUTED"
    await payment.bring_to_rest()
    await payment.check_everything()


async def test_facts_tell_of_exceptions_and_of_what_was_recovered(payment: PaymentKit) -> None:
    case = await new_case(payment, "quick_pay")
    payment.bank.is_mute = True
    await case.pay(payment.parts())
    payment.bank.is_mute = False
    await payment.bring_to_rest()
    calm = await new_case(payment, "quick_pay")
    await calm.pay(payment.parts())
    stub = PaymentServiceStub(payment.kit.channel("operator", "payment"))
    with bound(call_of_person("ada", "operator")):
        recovered = await stub.ListFacts(ListFactsRequest(kind="recovered"))
        exceptions = await stub.ListFacts(ListFactsRequest(kind="exception"))
    keys = {fact.key: fact.values for fact in recovered.facts}
    assert keys[case.payment_id]["state"] == "SUCCEEDED"
    assert calm.payment_id not in keys
    assert {fact.values["state"] for fact in exceptions.facts} <= {"RESOLVED"}


async def test_an_approved_action_goes_on_where_its_process_died(
    payment: PaymentKit, desk: Desk
) -> None:
    """The decision stands before anything is done, so the exception's job can go on with it."""
    case, one = await refused_return(payment, desk)
    one = await desk.propose(one, "MOVE_TO_UNCLAIMED")
    call = call_of_person("grace", "desk_checker")
    with bound(call), pytest.raises(Crash):
        await decide_resolution(
            payment.parts(Fault(1)), one.id, "so be it", one.version, call, approved=True
        )
    assert (await desk.get(one.id)).state == EXCEPTION_STATE_APPROVED
    await payment.run_due(0)
    assert (await desk.get(one.id)).state == EXCEPTION_STATE_RESOLVED
    found = await payment.parts().store.find_payment(case.payment_id)
    assert found is not None
    assert found.state == "UNCLAIMED"
    await payment.bring_to_rest()
    await payment.check_everything()
