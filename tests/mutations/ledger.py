"""Safeties of the ledger: what keeps every posting exact, once, and within its limits."""

from __future__ import annotations

from typing import Final

from tests.mutations.safety import Safety

_BOOKINGS: Final = "services/account/domain/bookings.py"
_DECISIONS: Final = "services/account/domain/decisions.py"
_LANE: Final = "services/account/store/lane.py"
_QUERIES: Final = "services/account/queries.sql"
_PURE: Final = (
    "tests/unit/account/test_ledger_scenarios_pure.py"
    "::test_playing_a_scenario_on_the_domain_gives_the_expected_results"
)
_FLOWS: Final = "tests/integration/account/test_ledger_flows.py"
_BUFFERED: Final = "tests/integration/account/test_buffered_accounts.py"
_BESIDE: Final = "tests/integration/account/test_writers_side_by_side.py"
_BAD: Final = "tests/integration/account/test_bad_transfers.py"
_CALLS: Final = "tests/integration/account/test_bad_account_calls.py"

SAFETIES: Final = (
    Safety(
        name="ledger-dedup-in-batch",
        protects="A transfer that comes twice in one batch is booked once.",
        file=_DECISIONS,
        before="""\
        if known is not None:
            return self._repeat(transfer, known)
        try:
""",
        after="""\
        try:
""",
        tests=(f"{_PURE}[batches/one_id_twice_in_a_call]",),
    ),
    Safety(
        name="ledger-fold-only-inserted",
        protects="Balances move only by transfers whose rows were inserted by the same statement:"
        " when another writer has taken an id, nothing of the batch is committed.",
        file=_LANE,
        before="""\
        if inserted != len(decision.stored):
            return False
""",
        after="",
        tests=(f"{_FLOWS}::test_posting_the_same_from_many_writers_books_it_once",),
    ),
    Safety(
        name="ledger-same-id-same-content",
        protects="An id that is used again for something else is refused, not answered as done.",
        file=_DECISIONS,
        before="        if different is None:\n",
        after="        if True:\n",
        tests=(f"{_PURE}[repeats/a_single_that_differs_names_the_field]",),
    ),
    Safety(
        name="ledger-chain-all-or-none",
        protects="Of linked transfers nothing stays when one of them is refused.",
        file=_DECISIONS,
        before="                self._bookings.undo_chain()\n",
        after="                self._bookings.end_chain()\n",
        tests=(f"{_PURE}[chains/the_second_of_four_fails]",),
    ),
    Safety(
        name="ledger-limit",
        protects="No account whose owner is not the platform goes below zero or its credit limit.",
        file="services/account/domain/batches.py",
        before="        return spendable < amount_minor\n",
        after="        return False\n",
        tests=(f"{_PURE}[single/spending_the_last_unit]",),
    ),
    Safety(
        name="ledger-hold",
        protects="What is held can be neither spent nor held a second time.",
        file="services/account/domain/batches.py",
        before="self.credits_posted - self.debits_posted - self.debits_pending\n",
        after="self.credits_posted - self.debits_posted\n",
        tests=(f"{_PURE}[pending/holding_keeps_money_back]",),
    ),
    Safety(
        name="ledger-post-within-hold",
        protects="A post takes no more than its hold keeps.",
        file=_BOOKINGS,
        before="        if amount > hold.held_minor:\n",
        after="        if False:\n",
        tests=(f"{_PURE}[pending/posting_more_than_is_held]",),
    ),
    Safety(
        name="ledger-void-tombstone",
        protects="A void that overtakes its hold keeps the hold from ever taking effect.",
        file=_BOOKINGS,
        before="        if fate is None and pending_id >= self._snapshot.tombstones_from:\n",
        after="        if False:\n",
        tests=(f"{_PURE}[tombstones/a_void_that_comes_first]",),
    ),
    Safety(
        name="ledger-pending-resolved-once",
        protects="A hold is posted, voided or expired once, whoever tries it how often.",
        file="services/account/domain/workings.py",
        before="        del self._holds[hold.id]\n",
        after="",
        tests=(f"{_PURE}[pending/posting_in_full_ends_the_hold]",),
    ),
    Safety(
        name="ledger-holds-locked",
        protects="Two processes that post parts of one hold at the same time take no part twice.",
        file=_QUERIES,
        before="""\
    FROM holds
    WHERE book = $1 AND id = ANY($2::text[])
    ORDER BY id
    FOR UPDATE
""",
        after="""\
    FROM holds
    WHERE book = $1 AND id = ANY($2::text[])
    ORDER BY id
""",
        tests=(f"{_FLOWS}::test_posting_parts_of_one_hold_from_many_writers_takes_each_part",),
    ),
    Safety(
        name="ledger-accounts-locked",
        protects="Two processes that book on one account at the same time both see the other's"
        " movement.",
        file=_QUERIES,
        before="    FOR NO KEY UPDATE\n",
        after="",
        tests=(f"{_FLOWS}::test_posting_crosswise_from_many_writers_ends_in_no_deadlock",),
    ),
    Safety(
        name="ledger-id-window",
        protects="An id is refused once it is so old that what was kept under it may be archived.",
        file="services/account/domain/requests.py",
        before="        if not self._earliest <= transfer.id[4:14] <= self._latest:\n",
        after="        if False:\n",
        tests=(f"{_PURE}[requests/the_window_of_ids]",),
    ),
    Safety(
        name="ledger-outflow-holds-stay",
        protects="A hold behind money that leaves ends only by a final outcome, never by time.",
        file="services/account/domain/requests.py",
        before="    if transfer.movement.startswith(OUTFLOW_PREFIXES):\n",
        after="    if False:\n",
        tests=(f"{_PURE}[expiry/what_leaves_never_expires]",),
    ),
    Safety(
        name="ledger-appending-locks",
        protects="Nothing is appended to the buffer of an account that was shut, or that is not"
        " buffered any more, by a batch which still saw it open.",
        file=_QUERIES,
        before="    FOR KEY SHARE OF a\n",
        after="",
        tests=(f"{_BUFFERED}::test_freezing_credits_gets_its_turn_between_batches",),
    ),
    Safety(
        name="ledger-drain-locked",
        protects="Two drains of one buffer post each credit once, each behind what the other did.",
        file=_QUERIES,
        before="SELECT 1 FROM accounts WHERE book = $1 AND id = $2 FOR NO KEY UPDATE;\n",
        after="SELECT 1 FROM accounts WHERE book = $1 AND id = $2;\n",
        tests=(f"{_BUFFERED}::test_draining_waits_for_another_drain_and_goes_on_behind_it",),
    ),
    Safety(
        name="ledger-changes-tried-again",
        protects="Who stands between two batches in a deadlock does not hear of it.",
        file="common/db/conflicts.py",
        before="            if classify(error) is not Failure.RETRY_WHOLE:\n",
        after="            if True:\n",
        tests=(f"{_BESIDE}::test_standing_between_two_batches_in_a_deadlock_is_tried_again",),
    ),
    Safety(
        name="ledger-wrong-items-alone",
        protects="A pending id that nobody can have made is refused alone: its month would fail all"
        " that travels with it.",
        file="services/account/domain/requests.py",
        before="        if transfer.pending_id[4:14] > self._latest:\n",
        after="        if False:\n",
        tests=(f"{_BAD}::test_booking_wrong_items_among_right_ones_books_the_right_ones",),
    ),
    Safety(
        name="ledger-references-printable",
        protects="A text that the database cannot take is refused as the caller's fault.",
        file="services/account/domain/requests.py",
        before="        if not transfer.reference_id.isprintable():\n",
        after="        if False:\n",
        tests=(f"{_BAD}::test_booking_wrong_items_among_right_ones_books_the_right_ones",),
    ),
    Safety(
        name="no-nul-in-texts",
        protects="A text with U+0000 is refused before anything is done, not by the database.",
        file="common/mesh/middleware/validation.py",
        before='                if "\\0" in one:\n',
        after="                if False:\n",
        tests=(f"{_CALLS}::test_calling_with_hostile_input_is_refused_and_does_nothing",),
    ),
    Safety(
        name="ledger-changes-drain-first",
        protects="An account is frozen, closed or limited only with all that was booked before.",
        file="services/account/flows/change_account.py",
        before="if account.is_buffered and await drain_locked(connection, book, account.id):\n",
        after="if False:\n",
        tests=(f"{_BUFFERED}::test_freezing_credits_waits_for_what_is_being_appended",),
    ),
)
