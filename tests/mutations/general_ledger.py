"""Safeties of business days, periods and proofs."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Edit, Safety

_CUT: Final = "tests/integration/account/test_cut_days.py"
_PERIODS: Final = "tests/integration/account/test_periods.py"
_PROOFS: Final = "tests/integration/account/test_proofs.py"

SAFETIES: Final = (
    Safety(
        name="days-cut-alone",
        protects="While a book's day is cut no posting is under way: each is on one of the two"
        " days, with its buffers and below its watermark.",
        file="services/account/store/days.py",
        before="        await connection.execute(_QUEUE_UP)\n",
        after="",
        also=(
            Edit(
                file="services/account/queries.sql",
                before="SELECT business_date FROM business_dates WHERE book = $1 FOR UPDATE;\n",
                after="SELECT business_date FROM business_dates WHERE book = $1;\n",
            ),
        ),
        tests=(f"{_CUT}::test_a_cut_waits_for_what_is_being_booked",),
    ),
    Safety(
        name="days-close-after-vouchers",
        protects="A day is closed only when each of its transfers has its voucher.",
        file="services/account/flows/prove_books.py",
        before="            waiting = frozenset(await snapshot.list_with_vouchers_due(days))\n",
        after="            waiting: frozenset[Day] = frozenset()\n",
        tests=(f"{_CUT}::test_a_day_waits_for_its_vouchers",),
    ),
    Safety(
        name="days-closed-once",
        protects="Of several closers at one day, one closes it and tells of it.",
        file="services/account/day_queries.sql",
        before=" AND d.state = w.from_state\n",
        after="\n",
        tests=(f"{_CUT}::test_cutting_by_two_callers_at_once_cuts_once",),
    ),
    Safety(
        name="proof-one-snapshot",
        protects="What is in flight is listed from the same view of the books that the sums are"
        " taken from.",
        file="services/account/store/proofs.py",
        before='transaction(isolation="repeatable_read", readonly=True)',
        after="transaction(readonly=True)",
        tests=(f"{_PROOFS}::test_what_is_in_flight_is_listed_from_the_view_that_is_proved",),
    ),
    Safety(
        name="periods-take-nothing",
        protects="A closed period takes no voucher, whoever writes it.",
        file="services/account/migrations/0004_business_days.sql",
        before="        IF EXISTS (SELECT 1 FROM periods WHERE period = month) THEN\n",
        after="        IF false THEN\n",
        tests=(f"{_PERIODS}::test_a_voucher_into_a_closed_period_is_refused_by_the_database",),
    ),
    Safety(
        name="periods-close-alone",
        protects="A voucher that is being written is in the balances of its period, or refused.",
        file="services/account/flows/close_period.py",
        before="        await parts.periods.lock(connection, month)\n",
        after="",
        tests=(f"{_PERIODS}::test_a_voucher_that_is_being_written_is_in_the_period_or_refused",),
    ),
)
