"""Safeties of orders and their clearing: one winner, one end, never more back than was paid."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Safety

_QUERIES: Final = "services/trade/queries.sql"
_ORDERS: Final = "tests/integration/trade/test_trade_orders.py"
_CLOSING: Final = "tests/integration/trade/test_trade_closing.py"
_REFUNDS: Final = "tests/integration/trade/test_trade_refunds.py"
_CLEARING: Final = "tests/integration/settlement/test_settlement_clearing.py"

SAFETIES: Final = (
    Safety(
        name="order-claim",
        protects="Of the payments of one order exactly one wins, for ever.",
        file=_QUERIES,
        before="""\
WHERE orders.id = before.id AND orders.payment_id = ''
    AND orders.state IN ('CREATED', 'CLOSING')
""",
        after="WHERE orders.id = before.id\n",
        tests=(
            f"{_ORDERS}::test_many_payments_claiming_one_order_have_one_winner_for_ever",
            f"{_ORDERS}::test_claiming_by_two_processes_has_one_winner",
        ),
    ),
    Safety(
        name="order-ends-by-its-winner",
        protects="A payment that did not win an order cannot complete it.",
        file=_QUERIES,
        before=" AND orders.state = 'PAID' AND orders.payment_id = booked.payment_id\n",
        after=" AND orders.state = 'PAID'\n",
        tests=(f"{_ORDERS}::test_a_payment_that_did_not_win_is_parked_and_changes_nothing",),
    ),
    Safety(
        name="order-closing-when-unknown",
        protects="An order whose payments may still succeed stays CLOSING, and is asked about"
        " again.",
        file="services/trade/flows/close_order.py",
        before="""\
        _log.info("order %s stays CLOSING: %s", order.id, error)
        return False
""",
        after="""\
        _log.info("order %s stays CLOSING: %s", order.id, error)
        return True
""",
        tests=(f"{_CLOSING}::test_closing_without_a_sure_answer_stays_closing_and_is_asked_again",),
    ),
    Safety(
        name="order-close-compare-and-set",
        protects="An order that was won while it was being closed is not closed.",
        file=_QUERIES,
        before="WHERE id = ANY ($1::text[]) AND state = 'CLOSING'\n",
        after="WHERE id = ANY ($1::text[])\n",
        tests=(f"{_CLOSING}::test_closing_and_claiming_at_once_end_in_exactly_one_way",),
    ),
    Safety(
        name="refund-promise-cap",
        protects="Refunds that are asked for at the same time never promise more than was paid.",
        file=_QUERIES,
        before="    AND refunded_minor + refunding_minor + $2 <= amount_minor\n",
        after="",
        tests=(f"{_REFUNDS}::test_refunds_at_once_never_promise_more_than_was_paid",),
    ),
    Safety(
        name="refund-ends-once",
        protects="A refund that has ended is not ended again, nor counted again.",
        file=_QUERIES,
        before="""\
    AND (refunds.state = 'PROCESSING'
        OR refunds.state = 'WAITING_FUNDS' AND news.state IN ('COMPLETED', 'FAILED'))
""",
        after="",
        tests=(f"{_REFUNDS}::test_a_refund_that_payment_works_on_ends_by_its_event",),
    ),
    Safety(
        name="clearing-once",
        protects="A movement that was cleared with other figures is not cleared a second time.",
        file="services/settlement/store.py",
        before="            if earlier is None or _money_of(earlier) != _money_of(entry):\n",
        after="            if False:\n",
        tests=(f"{_CLEARING}::test_clearing_a_payment_with_other_figures_is_parked",),
    ),
    Safety(
        name="clearing-adds-up",
        protects="What a merchant gets and what it pays in fees are together what was paid.",
        file="services/settlement/domain.py",
        before="    if entry.net_minor != entry.gross_minor - entry.fee_minor:\n",
        after="    if False:\n",
        tests=(
            "tests/unit/settlement/test_settlement_domain.py::test_only_entries_that_add_up_pass",
            f"{_CLEARING}::test_movements_that_do_not_add_up_are_parked_and_hold_nobody_up",
        ),
    ),
)
