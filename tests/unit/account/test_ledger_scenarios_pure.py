"""The text scenarios on the domain alone; and that together they reach every result there is."""

from __future__ import annotations

import pytest
from paymesh.error.v1 import ErrorReason

from tests.scenarios.account.language import Player, Scenario, load_scenarios
from tests.scenarios.account.memory import MemoryBooks

# Reasons of the ledger that are answers to other calls than transfers; tested with those.
_OF_OTHER_CALLS = {
    "ACCOUNT_DIFFERS",
    "BUSINESS_DATE_NOT_LATER",
    "PERIOD_NOT_CLOSABLE",
    "SUBJECT_CONTROLLED",
    "SUBJECT_UNKNOWN",
    "VOUCHER_REVERSED",
    "VOUCHER_UNBALANCED",
}
# Reasons that the ledger shares with everybody else.
_GENERAL = {
    "FIELD_INVALID",
    "ID_CONFLICT",
    "ID_MALFORMED",
    "ID_OUT_OF_WINDOW",
    "CURRENCY_UNKNOWN",
    "AMOUNT_OUT_OF_RANGE",
    "CURRENCY_MISMATCH",
}


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda one: one.name)
async def test_playing_a_scenario_on_the_domain_gives_the_expected_results(
    scenario: Scenario,
) -> None:
    books = MemoryBooks()
    await Player(books, scenario.name).play(scenario)
    for currency in {account.currency_code for account in books.accounts.values()}:
        accounts = [a for a in books.accounts.values() if a.currency_code == currency]
        assert sum(a.debits_posted_minor - a.credits_posted_minor for a in accounts) == 0
        assert sum(a.debits_pending_minor - a.credits_pending_minor for a in accounts) == 0


async def test_playing_all_scenarios_reaches_every_reason_of_the_ledger() -> None:
    reached: set[str] = set()
    for scenario in load_scenarios():
        player = Player(MemoryBooks(), scenario.name)
        await player.play(scenario)
        reached |= player.reasons
    of_ledger = {
        name.removeprefix("ERROR_REASON_")
        for name, number in ErrorReason.items()
        if 100 <= number < 150
    }
    assert (of_ledger - _OF_OTHER_CALLS) | _GENERAL | {""} == reached
