"""Safeties of vouchers: each movement once in the inner books, and nothing there without leave."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Edit, Safety

_QUERIES: Final = "services/account/voucher_queries.sql"
_MAKING: Final = "tests/integration/account/test_making_vouchers.py"
_COPIED: Final = "tests/integration/account/test_journal_of_another_cluster.py"
_RPCS: Final = "tests/integration/account/test_voucher_rpcs.py"
_CHART: Final = "tests/integration/account/test_chart_and_rules.py"
_WRONG: Final = f"{_RPCS}::test_booking_what_is_wrong_names_the_reason_and_the_field"

SAFETIES: Final = (
    Safety(
        name="voucher-horizon",
        protects="A transfer gets its voucher though its transaction commits after younger ones.",
        file=_QUERIES,
        before="""\
        SELECT max(r.behind) FROM running AS r WHERE r.behind BETWEEN 0 AND 2147483648
""",
        after="""\
        SELECT 0
""",
        tests=(
            f"{_MAKING}::test_making_beside_an_older_transaction_waits_for_it_and_misses_nothing",
        ),
    ),
    Safety(
        name="voucher-copied-journal",
        protects="A journal that was copied to another cluster gets vouchers of what follows.",
        file="services/account/store/journal_numbering.py",
        before="        return self.greatest >= self.next or self.shift != self.shift_of_rows\n",
        after="        return False\n",
        tests=(f"{_COPIED}::test_new_transfers_of_a_copied_journal_get_their_vouchers",),
    ),
    Safety(
        name="voucher-one-maker",
        protects="Two processes that make vouchers at once never work on the same transfers.",
        file=_QUERIES,
        before="""\
FROM voucher_cursors WHERE book = $1 FOR UPDATE SKIP LOCKED;
""",
        after="""\
FROM voucher_cursors WHERE book = $1;
""",
        also=(
            Edit(
                _QUERIES,
                "FROM voucher_cursors WHERE book = $1 FOR UPDATE;\n",
                "FROM voucher_cursors WHERE book = $1 LIMIT 1;\n",
            ),
        ),
        tests=(
            f"{_MAKING}::test_two_makers_at_once_make_each_voucher_once",
            f"{_MAKING}::test_waiting_for_a_transaction_waits_for_another_maker",
        ),
    ),
    Safety(
        name="voucher-cursor-with-vouchers",
        protects="What has its voucher is not made again: the cursor moves with the vouchers.",
        file="services/account/flows/make_vouchers.py",
        before="""\
                    await store.move_cursor(connection, book, chunk.until)
""",
        after="",
        tests=(f"{_MAKING}::test_making_vouchers_gives_each_movement_its_lines_by_rule",),
    ),
    Safety(
        name="voucher-of-who-got-it",
        protects="A redirected credit is one of the account that really got it.",
        file=_QUERIES,
        before="""\
        ON c.book = t.book AND c.id = coalesce(t.redirected_to, t.credit_account_id)
    LEFT JOIN subject_kinds AS ck ON ck.kind = c.kind
    LEFT JOIN rules AS named""",
        after="""\
        ON c.book = t.book AND c.id = t.credit_account_id
    LEFT JOIN subject_kinds AS ck ON ck.kind = c.kind
    LEFT JOIN rules AS named""",
        tests=(
            f"{_MAKING}::test_making_the_voucher_of_a_redirected_credit_says_who_really_got_it",
        ),
    ),
    Safety(
        name="voucher-without-subject-stops",
        protects="A transfer whose accounts cannot be told is not left out of the inner books.",
        file=_QUERIES,
        before="""\
    LEFT JOIN subject_kinds AS dk ON dk.kind = d.kind
    LEFT JOIN accounts AS c
        ON c.book = t.book AND c.id = coalesce(t.redirected_to, t.credit_account_id)
    LEFT JOIN subject_kinds AS ck ON ck.kind = c.kind
    LEFT JOIN rules AS named""",
        after="""\
    JOIN subject_kinds AS dk ON dk.kind = d.kind
    JOIN accounts AS c
        ON c.book = t.book AND c.id = coalesce(t.redirected_to, t.credit_account_id)
    JOIN subject_kinds AS ck ON ck.kind = c.kind
    LEFT JOIN rules AS named""",
        tests=(f"{_MAKING}::test_a_transfer_whose_accounts_cannot_be_told_stops_the_maker",),
    ),
    Safety(
        name="voucher-rule-unchanged",
        protects="A rule stays as vouchers were made by it; a change is a version of its own.",
        file="services/account/store/charts.py",
        before="""\
            _check_rule(rule, kept[rule.movement, rule.version])
""",
        after="""\
            pass
""",
        tests=(f"{_CHART}::test_changing_a_rule_under_its_old_version_is_refused",),
    ),
    Safety(
        name="voucher-kind-stays",
        protects="The accounts of a kind add up to one subject for ever.",
        file="services/account/store/charts.py",
        before="            if kept[kind.code] != kind.subject_code:\n",
        after="            if False:\n",
        tests=(f"{_CHART}::test_moving_a_kind_to_another_subject_is_refused",),
    ),
    Safety(
        name="voucher-event-once",
        protects="An event makes one voucher, also when it comes again after years.",
        file="services/account/flows/hear_vouchers.py",
        before="        if voucher_id not in booked\n",
        after="",
        tests=(f"{_RPCS}::test_an_event_makes_one_voucher_however_often_it_comes",),
    ),
    Safety(
        name="voucher-closed-day",
        protects="A closed day takes no voucher: what is learned late is of the current one.",
        file="services/account/flows/hear_vouchers.py",
        before="    booked_on = wanted if wanted in taking else today\n",
        after="    booked_on = wanted\n",
        tests=(f"{_RPCS}::test_an_event_of_a_closed_day_is_booked_on_the_current_one",),
    ),
    Safety(
        name="voucher-balances",
        protects="Debits and credits of a voucher are equal, whoever asks for it.",
        file="services/account/flows/book_voucher.py",
        before="    if difference or not lines:\n",
        after="    if False:\n",
        tests=(
            f"{_WRONG}[debits that are not the credits]",
            f"{_RPCS}::test_an_event_that_no_voucher_may_be_made_of_is_parked_with_the_reason",
        ),
    ),
    Safety(
        name="voucher-not-on-accounts",
        protects="Subjects that accounts add up to are moved by transfers alone.",
        file="services/account/flows/book_voucher.py",
        before="        if line.subject_code in chart.kinds_by_subject:\n",
        after="        if False:\n",
        tests=(
            f"{_WRONG}[subject of accounts]",
            f"{_RPCS}::test_an_event_that_no_voucher_may_be_made_of_is_parked_with_the_reason",
        ),
    ),
    Safety(
        name="voucher-by-accountants",
        protects="Only an accountant writes vouchers by hand.",
        file="services/account/flows/book_voucher.py",
        before="    require_role(principal, ROLE)\n",
        after="",
        tests=(f"{_RPCS}::test_booking_without_the_role_is_refused",),
    ),
    Safety(
        name="voucher-reversed-once",
        protects="A voucher is taken back once, by the request that came first.",
        file="services/account/flows/reverse_voucher.py",
        before="    if voucher.reversed_by_id:\n",
        after="    if False:\n",
        tests=(f"{_RPCS}::test_taking_a_voucher_back_exchanges_its_sides_once",),
    ),
    Safety(
        name="voucher-journal-replaced",
        protects="A transfer never stands without a voucher: what is taken back is made anew.",
        file="services/account/flows/reverse_voucher.py",
        before="        if voucher.source is VoucherSource.JOURNAL:\n",
        after="        if False:\n",
        tests=(f"{_RPCS}::test_taking_a_journal_voucher_back_makes_it_anew_by_the_latest_rule",),
    ),
)
