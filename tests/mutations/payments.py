"""Safeties of payments and refunds: written first, moved once, never ended by a guess."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Edit, Safety

_QUERIES: Final = "services/payment/queries.sql"
_REFUND: Final = "services/payment/flows/refund_payment.py"
_COLLECT: Final = "services/payment/flows/collect_payment.py"
_RETURN: Final = "services/payment/flows/return_payment.py"
_RETURNS: Final = "tests/integration/payment/test_racing_returns.py"
_STEPS: Final = "tests/integration/payment/test_payment_safeties.py"
_FLOWS: Final = "tests/integration/payment/test_crashing_flows.py"
_DYING: Final = f"{_FLOWS}::test_dying_at_any_step_of_a_flow_moves_the_money_exactly_once"
_WALK: Final = f"{_FLOWS}::test_walking_a_flow_books_what_the_page_says"
_DESK: Final = "tests/integration/payment/test_exception_desk.py"
_KINDS: Final = "tests/integration/payment/test_exception_kinds.py"
_LET_FAIL: Final = "tests/integration/payment/test_let_fail.py"
_EXCEPTIONS: Final = "tests/unit/payment/test_exceptions.py"
_FEES: Final = "tests/unit/payment/test_refund_fees.py"

SAFETIES: Final = (
    Safety(
        name="payment-intent-before-call",
        protects="What a payment is about to do is written before the channel is called.",
        file="services/payment/flows/create_payment.py",
        before="    now = payment.created_at\n",
        after="    now = payment.created_at\n    await parts.peers.charge(payment)\n",
        tests=(f"{_STEPS}::test_the_intent_stands_before_the_channel_is_called",),
    ),
    Safety(
        name="payment-always-asked-about",
        protects="A payment whose process dies is asked about until it has ended, without its"
        " caller.",
        file="services/payment/store/payments.py",
        before="                    if i.payment.state in PAYMENT_OPEN\n",
        after="                    if False\n",
        tests=(
            f"{_STEPS}::test_the_intent_stands_before_the_channel_is_called",
            f"{_DYING}[pay by card-before]",
        ),
    ),
    Safety(
        name="payment-version-compare-and-set",
        protects="Of two that move a payment from the same version, one does.",
        file=_QUERIES,
        before="WHERE payments.id = new.id AND payments.version = new.expected_version\n",
        after="WHERE payments.id = new.id\n",
        tests=(f"{_STEPS}::test_many_that_end_a_payment_at_once_end_it_once",),
    ),
    Safety(
        name="refund-version-compare-and-set",
        protects="Of two that move a refund from the same version, one does, and the cap is"
        " settled once.",
        file=_QUERIES,
        before="updated_at = $10, retried_steps = $11\nWHERE id = $1 AND version = $2\n",
        after="updated_at = $10, retried_steps = $11\nWHERE id = $1 AND $2::bigint > 0\n",
        tests=(f"{_STEPS}::test_many_that_end_a_refund_at_once_end_it_once",),
    ),
    Safety(
        name="payment-claims-its-order",
        protects="Money that came for an order which another payment has won goes back to its"
        " payer.",
        file="services/payment/flows/settle_payment.py",
        before="        if await parts.peers.claim_order(payment):\n",
        after="        if True:\n",
        tests=(f"{_WALK}[pay an order twice]", f"{_WALK}[succeed on a closed order]"),
    ),
    Safety(
        name="payment-other-money-into-suspense",
        protects="Other money than was asked for is no success: it waits in suspense and goes"
        " back.",
        file=_COLLECT,
        before="        return await _conflict(parts, payment, news)\n    if payment.state not in",
        after="        return await settle(parts, payment)\n    if payment.state not in",
        tests=(f"{_WALK}[take another amount]", f"{_WALK}[take another currency]"),
    ),
    Safety(
        name="payment-unknown-tries-no-other-channel",
        protects="While one channel may have taken the money, no other channel is asked to.",
        file=_COLLECT,
        before="            if error.outcome is not Outcome.NOT_EXECUTED:\n                raise\n",
        after="",
        tests=(f"{_STEPS}::test_an_unknown_outcome_is_never_tried_at_another_channel",),
    ),
    Safety(
        name="payment-not-found-is-no-failure",
        protects="A request that the channel does not know has failed only after its whole life.",
        file=_COLLECT,
        before="        if parts.clock.now() - payment.created_at > life:\n",
        after="        if True:\n",
        tests=(f"{_STEPS}::test_a_request_that_nobody_knows_stays_open_for_its_life",),
    ),
    Safety(
        name="payment-closed-only-when-sure",
        protects="An order is not closed while a payment of it may still succeed.",
        file="services/payment/flows/close_payments.py",
        before="            closed = False  # not known",
        after="            pass  # not known",
        tests=(f"{_STEPS}::test_an_order_is_not_closed_while_a_channel_is_silent",),
    ),
    Safety(
        name="refund-cap",
        protects="Refunds, however many at once, never give back more than was paid.",
        file="services/payment/store/refunds.py",
        before=" or amount > payment.refundable_minor:\n",
        after=":\n",
        tests=(f"{_STEPS}::test_refunds_at_once_never_exceed_what_was_paid",),
        also=(
            Edit(
                _QUERIES,
                "WHERE id = $1 AND state = 'SUCCEEDED' AND refunded_minor + refunding_minor + $2"
                " <= amount_minor\n",
                "WHERE id = $1 AND state = 'SUCCEEDED'\n",
            ),
        ),
    ),
    Safety(
        name="refund-hold-before-channel",
        protects="A channel gives money back only after the merchant's was held.",
        file=_REFUND,
        before="            return await _wait_for_funds(parts, refund)\n        refund = held\n",
        after="            held = refund\n        refund = held\n",
        tests=(f"{_STEPS}::test_a_channel_gives_nothing_back_without_the_merchants_money",),
        also=(
            Edit(
                _REFUND,
                "    if refund.state not in (RefundState.HELD, RefundState.UNKNOWN)"
                " or refund.failure is not None:\n",
                "    if False:\n",
            ),
        ),
    ),
    Safety(
        name="refund-release-when-refused",
        protects="When a channel refuses to give back, what was held is the merchant's again.",
        file=_REFUND,
        before='await book(parts, release_chain(refund), refund.amount.currency_code, "void")',
        after="pass",
        tests=(f"{_WALK}[be refused a refund]",),
    ),
    Safety(
        name="refund-fee-closes-to-zero",
        protects="Refunds that give all of a payment back give exactly all of its fee back.",
        file="services/payment/domain/payments.py",
        before="        until = returned_fee(self.fee_minor, self.amount.amount_minor, 0,"
        " before + refund_minor)\n"
        "        return max(0, min(until - self.fee_given_back_minor, refund_minor))\n",
        after="        return self.fee_minor * refund_minor // self.amount.amount_minor\n",
        tests=(
            f"{_FEES}::test_refunding_all_in_parts_returns_the_whole_fee",
            f"{_FEES}::test_refunding_in_sequence_returns_the_fee_in_proportion",
        ),
    ),
    Safety(
        name="desk-maker-is-not-checker",
        protects="Nobody approves what they have proposed.",
        file="services/payment/flows/desk.py",
        before="    if exception.maker == call.principal.actor:\n",
        after="    if False:\n",
        tests=(f"{_DESK}::test_nobody_decides_alone_or_without_the_role",),
    ),
    Safety(
        name="payment-late-money-counts",
        protects="Money that comes after its payment has failed is claimed or given back.",
        file="services/payment/domain/states.py",
        before="    _P.FAILED: frozenset({_P.RECEIVED, _P.CONFLICTED}),\n",
        after="    _P.FAILED: frozenset(),\n",
        tests=(f"{_LET_FAIL}::test_a_payment_let_fail_still_takes_late_money",),
    ),
    Safety(
        name="payment-way-out-before-booking",
        protects="Of money that has to go back either the return is booked or that it is kept,"
        " though the channel changes its mind between.",
        file=_RETURN,
        before="    return await save(parts, change)\n\n\nasync def _book_way_out(",
        after="    return after\n\n\nasync def _book_way_out(",
        tests=(f"{_RETURNS}::test_a_mind_that_changes_at_any_step_of_keeping_is_booked_once",),
    ),
    Safety(
        name="payment-late-return-is-booked",
        protects="What a channel gives back after a return had ended is in the books, each time.",
        file="services/payment/flows/book_late_return.py",
        before=" PAYMENT_RETURN_ENDED and _times_booked(payment) < times:\n",
        after=" ():\n",
        tests=(f"{_WALK}[be given back what was kept]", f"{_WALK}[be given back twice]"),
    ),
    Safety(
        name="desk-one-exception-an-occasion",
        protects="What is met again and again is one exception, not one each time.",
        file="services/payment/domain/exceptions.py",
        before='derive("exc", subject_id, kind, occasion)',
        after='derive("exc", subject_id, kind, occasion, __import__("uuid").uuid4().hex)',
        tests=(
            f"{_STEPS}::test_what_nobody_knows_for_long_is_one_exception_however_often_it_is_met",
            f"{_EXCEPTIONS}::test_ids_are_the_same_for_the_same_occasion_only",
        ),
    ),
    Safety(
        name="refund-let-fail-is-asked-on",
        protects="What a channel does with a refund that people let fail is found out by asking.",
        file=_REFUND,
        before='    is_asked_on = failure.is_by_decision and refund.source_kind != ""\n',
        after="    is_asked_on = False\n",
        tests=(f"{_LET_FAIL}::test_a_refund_let_fail_is_asked_about_until_its_channel_has_ended",),
    ),
    Safety(
        name="callback-questioned-is-examined",
        protects="A questioned callback stands on the desk, and is asked about at its deadline.",
        file="services/payment/events.py",
        before="                await self._question(connection, event, now)\n",
        after="",
        tests=(f"{_KINDS}::test_a_questioned_callback_is_examined_at_its_deadline",),
    ),
)
