"""What the shop does about payments and refunds, against answers that are played to it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import pytest
from paymesh.payment.v1 import PaymentState

from services.cli.demo import merchant_api, paying, refunding
from services.cli.demo.merchant_api import (
    QUIET,
    MerchantApi,
    Patience,
    RefusedError,
    ShopError,
    may_repeat,
    pause_before,
)
from services.cli.demo.paying import CODE_PATIENCE_SECONDS, Paying, Step, step_after
from services.cli.demo.refunding import Refunding
from services.cli.demo.rest import Answer
from services.cli.demo.tally import Tally
from services.cli.demo.webhooks import WebhookReceiver

PATIENT = Patience(repeat_seconds=5.0, end_seconds=5.0, payments_max=4, refunds_max=4)
ORDER = {"id": "trd_1"}
PAY = "POST /v1/orders/trd_1/payments"
CODE = {"show_qr": {"content": "the-code"}}

Json = dict[str, Any]


def payment(state: str, number: int = 1, **fields: Any) -> Answer:
    """An answer that shows a payment."""
    return Answer(
        200, {"payment": {"id": f"pay_{number}", "product": "qr_pay", "state": state, **fields}}
    )


def order(state: str) -> Answer:
    """An answer that shows the order."""
    return Answer(200, {"order": {"id": "trd_1", "state": state}})


def refund(state: str, number: int = 1) -> Answer:
    """An answer that shows a refund."""
    return Answer(200, {"refund": {"id": f"rfd_{number}", "state": state}})


def refused(status: int, reason: str, retry: str = "NEVER") -> Answer:
    """An answer that refuses."""
    return Answer(status, {"reason": reason, "retry": retry, "detail": "played"})


class Stage:
    """Plays answers by request, each in turn and the last one for ever; keeps what was asked."""

    def __init__(self, **unused: None) -> None:
        self.answers: defaultdict[str, list[Answer]] = defaultdict(list)
        self.asked: list[tuple[str, str]] = []
        """What was asked, with its Idempotency-Key."""
        self.scanned: list[str] = []
        self.scans_fail = 0
        self.webhooks = WebhookReceiver()
        self.tally = Tally()

    async def exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, idempotency_key: str
    ) -> Answer:
        """Answer as planned."""
        request = f"{method} {path}"
        self.asked.append((request, idempotency_key))
        planned = self.answers[request]
        assert planned, f"nobody expected {request}"
        return planned.pop(0) if len(planned) > 1 else planned[0]

    async def scan(self, content: str) -> bool:
        """Play the person with the telephone."""
        if self.scans_fail:
            self.scans_fail -= 1
            return False
        self.scanned.append(content)
        return True

    def paying(self, patience: Patience = PATIENT) -> Paying:
        """The shop's part that pays."""
        api = MerchantApi(self.exchange, patience)
        return Paying(api, self.webhooks, self.scan, self.tally)

    def refunding(self, patience: Patience = PATIENT) -> Refunding:
        """The shop's part that gives back."""
        return Refunding(MerchantApi(self.exchange, patience), self.webhooks, self.tally)

    def keys(self, request: str) -> list[str]:
        """The keys of all requests of a kind."""
        return [key for what, key in self.asked if what == request]


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage on which nobody waits long."""
    monkeypatch.setattr(paying, "WEBHOOK_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(paying, "_ASK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(paying, "_PAUSE_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(refunding, "WEBHOOK_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(refunding, "_ASK_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(merchant_api, "_PAUSE_FIRST_SECONDS", 0.001)
    return Stage()


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("PENDING", Step.WAIT),
        ("UNKNOWN", Step.WAIT),
        ("RECEIVED", Step.WAIT),
        ("REQUIRES_ACTION", Step.WAIT),
        ("SUCCEEDED", Step.PAID),
        ("FAILED", Step.PAY_AGAIN),
        ("CLOSED", Step.PAY_AGAIN),
        ("RETURNING", Step.PAY_AGAIN),
        ("RETURNED", Step.PAY_AGAIN),
        ("CONFLICTED", Step.PAY_AGAIN),
        ("UNCLAIMED", Step.PAY_AGAIN),
        ("A_STATE_OF_NEXT_YEAR", Step.WAIT),
    ],
)
def test_each_state_of_a_payment_has_its_step(state: str, step: Step) -> None:
    assert step_after({"state": state}) is step


def test_every_state_of_the_contract_is_known_to_the_shop() -> None:
    states = {name.removeprefix("PAYMENT_STATE_") for name in PaymentState.keys()}  # noqa: SIM118
    assert states - {"UNSPECIFIED"} == set(paying._STEPS)


def test_code_is_scanned_and_one_that_never_comes_is_given_up() -> None:
    waiting = {"state": "REQUIRES_ACTION", "product": "qr_pay"}
    assert step_after({**waiting, "next_action": CODE}) is Step.SCAN
    assert step_after({**waiting, "next_action": CODE}, CODE_PATIENCE_SECONDS + 1) is Step.SCAN
    assert step_after(waiting, CODE_PATIENCE_SECONDS) is Step.WAIT
    assert step_after(waiting, CODE_PATIENCE_SECONDS + 1) is Step.PAY_AGAIN
    # A bank that works on a card payment may still take the money.
    by_card = {**waiting, "product": "quick_pay"}
    assert step_after(by_card, CODE_PATIENCE_SECONDS + 1) is Step.WAIT


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(200), False),
        (refused(409, "IDEMPOTENCY_KEY_IN_USE", "AFTER_DELAY"), True),
        (refused(503, "UNAVAILABLE", "SAME_ID"), True),
        (refused(500, "INTERNAL", "SAME_ID"), True),
        (refused(503, "OVERLOADED", "AFTER_DELAY"), True),
        (refused(504, "DEADLINE_EXCEEDED", "SAME_ID"), True),
        (refused(429, "RATE_LIMITED", "AFTER_DELAY"), True),
        (refused(402, "INSUFFICIENT_FUNDS", "NEW_ID"), False),
        (refused(409, "ORDER_NOT_PAYABLE"), False),
        (refused(501, "METHOD_UNKNOWN"), False),
        (Answer(502, {}), True),
        (Answer(429, {}), True),
        (Answer(400, {}), False),
    ],
)
def test_only_what_may_be_repeated_is_repeated(answer: Answer, expected: bool) -> None:
    assert may_repeat(answer) is expected


def test_pauses_grow_up_to_a_bound_unless_one_is_asked_for() -> None:
    pauses = [pause_before(repeat, Answer(503)) for repeat in range(1, 30)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0
    assert pause_before(1, Answer(503, {}, retry_after_seconds=7.0)) == 7.0


async def test_repeats_come_under_the_same_key(stage: Stage) -> None:
    stage.answers[PAY] = [
        refused(503, "UNAVAILABLE", "SAME_ID"),
        refused(409, "IDEMPOTENCY_KEY_IN_USE", "AFTER_DELAY"),
        Answer(502, {}),
        payment("SUCCEEDED"),
    ]
    await stage.paying().pay(ORDER, {"product": "balance"}, "pay-1")
    keys = stage.keys(PAY)
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert stage.tally.payments == 1


@pytest.mark.parametrize(
    "state", ["FAILED", "CLOSED", "RETURNING", "RETURNED", "CONFLICTED", "UNCLAIMED"]
)
async def test_payment_that_does_not_pay_is_followed_by_another_under_a_new_key(
    stage: Stage, state: str
) -> None:
    stage.answers[PAY] = [payment(state), payment("SUCCEEDED", 2)]
    stage.answers["GET /v1/orders/trd_1"] = [order("CREATED")]
    await stage.paying().pay(ORDER, {"product": "quick_pay"}, "pay-1")
    assert len(set(stage.keys(PAY))) == 2
    assert stage.tally.paid_again == 1
    is_told = ("payment.failed", "pay_1") in stage.tally.expected
    assert is_told == (state in ("FAILED", "CLOSED"))


async def test_order_that_another_payment_paid_is_not_paid_again(stage: Stage) -> None:
    stage.answers[PAY] = [payment("RETURNING")]
    stage.answers["GET /v1/orders/trd_1"] = [order("COMPLETED")]
    await stage.paying().pay(ORDER, {"product": "quick_pay"}, "pay-1")
    assert len(stage.keys(PAY)) == 1
    assert stage.tally.payments == 1


async def test_refused_payment_of_a_paid_order_counts_as_paid(stage: Stage) -> None:
    stage.answers[PAY] = [refused(409, "ORDER_NOT_PAYABLE")]
    stage.answers["GET /v1/orders/trd_1"] = [order("PAID")]
    await stage.paying().pay(ORDER, {"product": "quick_pay"}, "pay-1")
    assert stage.tally.payments == 1


async def test_closed_order_ends_the_purchase(stage: Stage) -> None:
    stage.answers[PAY] = [refused(409, "ORDER_NOT_PAYABLE")]
    stage.answers["GET /v1/orders/trd_1"] = [order("CLOSED")]
    with pytest.raises(ShopError, match="CLOSED"):
        await stage.paying().pay(ORDER, {"product": "quick_pay"}, "pay-1")


@pytest.mark.parametrize("reason", ["PAYMENT_IN_PROGRESS", "CHANNEL_NOT_ELIGIBLE"])
async def test_payment_that_is_not_taken_now_is_tried_later(stage: Stage, reason: str) -> None:
    stage.answers[PAY] = [refused(409, reason), payment("SUCCEEDED")]
    stage.answers["GET /v1/orders/trd_1"] = [order("CREATED")]
    await stage.paying().pay(ORDER, {"product": "balance"}, "pay-1")
    assert len(set(stage.keys(PAY))) == 2


async def test_own_mistake_is_told_at_once(stage: Stage) -> None:
    stage.answers[PAY] = [refused(400, "FIELD_INVALID")]
    with pytest.raises(RefusedError, match="FIELD_INVALID"):
        await stage.paying().pay(ORDER, {"product": "balance"}, "pay-1")
    assert len(stage.keys(PAY)) == 1


async def test_code_is_scanned_until_the_party_takes_it_and_asked_about_without_webhook(
    stage: Stage,
) -> None:
    stage.scans_fail = 2
    stage.answers[PAY] = [payment("REQUIRES_ACTION", next_action=CODE)]
    stage.answers["GET /v1/payments/pay_1"] = [
        payment("REQUIRES_ACTION", next_action=CODE),
        payment("REQUIRES_ACTION", next_action=CODE),
        payment("UNKNOWN", next_action=CODE),
        payment("RECEIVED"),
        payment("SUCCEEDED"),
    ]
    await stage.paying().pay(ORDER, {"product": "qr_pay"}, "pay-1")
    assert stage.scanned == ["the-code"]
    assert stage.tally.payments == 1


async def test_webhook_spares_the_question(stage: Stage) -> None:
    stage.answers[PAY] = [payment("REQUIRES_ACTION", next_action=CODE)]
    stage.webhooks._count("msg_1", {"type": "order.completed", "data": {"id": "trd_1"}})
    await stage.paying().pay(ORDER, {"product": "qr_pay"}, "pay-1")
    assert len(stage.asked) == 1


async def test_unknown_payment_is_waited_for_and_never_paid_beside(stage: Stage) -> None:
    stage.answers[PAY] = [payment("UNKNOWN"), payment("SUCCEEDED", 2)]
    stage.answers["GET /v1/payments/pay_1"] = [payment("UNKNOWN")] * 5 + [payment("FAILED")]
    stage.answers["GET /v1/orders/trd_1"] = [order("CREATED")]
    await stage.paying().pay(ORDER, {"product": "quick_pay"}, "pay-1")
    begun = [request for request, _ in stage.asked]
    assert begun.index(PAY, 1) > 6


async def test_news_of_a_failure_that_was_none_is_no_busy_loop(stage: Stage) -> None:
    """A payment that failed may be received late: the webhook of the failure stays heard."""
    stage.webhooks._count("msg_1", {"type": "payment.failed", "data": {"id": "pay_1"}})
    stage.answers[PAY] = [payment("UNKNOWN")]
    stage.answers["GET /v1/payments/pay_1"] = [payment("RECEIVED")]
    short = Patience(repeat_seconds=1.0, end_seconds=0.1, payments_max=1, refunds_max=1)
    with pytest.raises(ShopError, match="still RECEIVED"):
        await stage.paying(short).pay(ORDER, {"product": "quick_pay"}, "pay-1")
    assert len(stage.asked) < 20


async def test_payment_that_never_ends_is_a_failure(stage: Stage) -> None:
    stage.answers[PAY] = [payment("UNKNOWN")]
    stage.answers["GET /v1/payments/pay_1"] = [payment("UNKNOWN")]
    hasty = Patience(repeat_seconds=1.0, end_seconds=0.05, payments_max=2, refunds_max=1)
    with pytest.raises(ShopError, match="still UNKNOWN"):
        await stage.paying(hasty).pay(ORDER, {"product": "quick_pay"}, "pay-1")


async def test_quiet_shop_takes_no_failure_for_granted(stage: Stage) -> None:
    stage.answers[PAY] = [payment("FAILED", failure={"reason": "DECLINED"})]
    stage.answers["GET /v1/orders/trd_1"] = [order("CREATED")]
    with pytest.raises(ShopError, match="DECLINED"):
        await stage.paying(QUIET).pay(ORDER, {"product": "balance"}, "pay-1")
    assert len(stage.keys(PAY)) == 1


async def test_bad_card_is_declined(stage: Stage) -> None:
    stage.answers[PAY] = [payment("UNKNOWN")]
    stage.answers["GET /v1/payments/pay_1"] = [payment("FAILED")]
    await stage.paying().be_declined(ORDER, {"product": "quick_pay"}, "bad-1")
    assert stage.tally.expected == {("payment.failed", "pay_1")}


async def test_bad_card_that_pays_is_a_failure(stage: Stage) -> None:
    stage.answers[PAY] = [payment("SUCCEEDED")]
    with pytest.raises(ShopError, match="not declined"):
        await stage.paying().be_declined(ORDER, {"product": "quick_pay"}, "bad-1")


async def test_second_window_scans_its_own_code_and_is_forgotten(stage: Stage) -> None:
    stage.answers[PAY] = [payment("REQUIRES_ACTION", next_action=CODE)]
    await stage.paying().pay_beside(ORDER, {"product": "qr_pay"}, "twin-1")
    assert stage.scanned == ["the-code"]
    assert (stage.tally.paid_twice, stage.tally.payments) == (1, 0)


@pytest.mark.parametrize(
    "answer", [refused(409, "ORDER_NOT_PAYABLE"), payment("FAILED"), payment("REQUIRES_ACTION")]
)
async def test_second_window_without_a_code_changes_nothing(stage: Stage, answer: Answer) -> None:
    stage.answers[PAY] = [answer]
    await stage.paying().pay_beside(ORDER, {"product": "qr_pay"}, "twin-1")
    assert (stage.scanned, stage.tally.paid_twice) == ([], 0)


REFUND = "POST /v1/refunds"


async def test_refund_is_followed_to_its_end(stage: Stage) -> None:
    stage.answers[REFUND] = [refund("PROCESSING")]
    stage.answers["GET /v1/refunds/rfd_1"] = [
        refund("PROCESSING"),
        refund("WAITING_FUNDS"),
        refund("COMPLETED"),
    ]
    await stage.refunding().refund(ORDER, "line-1", 250)
    assert (stage.tally.refunds, stage.tally.refunded_minor) == (1, 250)
    assert stage.tally.expected == {("refund.completed", "rfd_1")}


async def test_refused_refund_is_asked_for_again_under_a_new_number(stage: Stage) -> None:
    stage.answers[REFUND] = [
        refund("PROCESSING"),
        refused(422, "REFUND_EXCEEDS_PAYMENT"),
        refund("COMPLETED", 2),
    ]
    stage.answers["GET /v1/refunds/rfd_1"] = [refund("FAILED")]
    await stage.refunding().refund(ORDER, "line-1", 250)
    assert len(set(stage.keys(REFUND))) == 3
    assert (stage.tally.refunds, stage.tally.refunds_again) == (1, 2)
    assert stage.tally.expected == {("refund.failed", "rfd_1"), ("refund.completed", "rfd_2")}


async def test_first_refund_that_is_refused_outright_is_a_failure(stage: Stage) -> None:
    stage.answers[REFUND] = [refused(422, "REFUND_EXCEEDS_PAYMENT")]
    with pytest.raises(RefusedError, match="REFUND_EXCEEDS_PAYMENT"):
        await stage.refunding().refund(ORDER, "line-1", 250)


async def test_refund_that_is_always_refused_is_a_failure(stage: Stage) -> None:
    stage.answers[REFUND] = [refund("FAILED")]
    with pytest.raises(ShopError, match="FAILED"):
        await stage.refunding().refund(ORDER, "line-1", 250)
    assert len(set(stage.keys(REFUND))) == PATIENT.refunds_max
