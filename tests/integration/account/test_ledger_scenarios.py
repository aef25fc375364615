"""The text scenarios on the real ledger."""

from __future__ import annotations

import pytest

from tests.integration.account.conftest import DatabaseBooks, LedgerKit
from tests.scenarios.account.language import Player, Scenario, load_scenarios


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda one: one.name)
async def test_playing_a_scenario_on_postgresql_gives_the_expected_results(
    kit: LedgerKit, scenario: Scenario
) -> None:
    books = DatabaseBooks(kit, f"tenant-{scenario.name}")
    await books.rewind()
    await Player(books, scenario.name).play(scenario)
    await kit.assert_books_fit()
