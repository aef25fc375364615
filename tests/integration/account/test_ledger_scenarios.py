"""The text scenarios on the real ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.integration.account.conftest import DatabaseBooks, LedgerKit, close_kit, open_kit
from tests.scenarios.account.language import Player, Scenario, load_scenarios


@pytest.fixture(scope="module")
async def one_kit(ledger_url: str) -> AsyncIterator[LedgerKit]:
    """One writer for all scenarios, each of which is a world of its own."""
    kit = await open_kit(ledger_url)
    yield kit
    await close_kit(kit)


@pytest.mark.parametrize("scenario", load_scenarios(), ids=lambda one: one.name)
async def test_playing_a_scenario_on_postgresql_gives_the_expected_results(
    one_kit: LedgerKit, scenario: Scenario
) -> None:
    books = DatabaseBooks(one_kit, f"tenant-{scenario.name}")
    await books.rewind()
    await Player(books, scenario.name).play(scenario)
    await one_kit.assert_books_fit()
