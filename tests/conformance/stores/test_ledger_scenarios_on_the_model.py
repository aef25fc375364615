"""The ledger's text scenarios, played on the model as they are on PostgreSQL."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from common.clock import SystemClock
from services.account.chart_files import read_chart
from services.account.flows.cut_day import open_book
from services.account.flows.post_transfers import Ledger
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from tests.integration.account.conftest import DatabaseBooks, LedgerKit
from tests.model_stores.database import ModelDatabase
from tests.scenarios.account.language import BASE_DATE, Player, Scenario, load_scenarios


class MovedClock(SystemClock):
    """The model's server clock, which a scenario moves on."""

    ahead = timedelta()

    def now(self) -> datetime:
        """Return the moved time."""
        return super().now() + self.ahead


class ModelBooks(DatabaseBooks):
    """Scenarios' way into the ledger on the model."""

    def __init__(self, kit: LedgerKit, clock: MovedClock, tenant_id: str) -> None:
        super().__init__(kit, tenant_id)
        self._server_clock = clock

    async def wait(self, seconds: int) -> None:
        """Let the time of holds pass."""
        self._server_clock.ahead += timedelta(seconds=seconds)


def _scenarios() -> list[Any]:
    """All scenarios; thousands of transfers show nothing of the model that a few do not."""
    return [
        pytest.param(
            scenario,
            id=scenario.name,
            marks=[pytest.mark.long] if len(scenario.lines) > 1000 else [],
        )
        for scenario in load_scenarios()
    ]


@pytest.mark.parametrize("scenario", _scenarios())
async def test_playing_a_scenario_on_the_model_gives_the_expected_results(
    scenario: Scenario,
) -> None:
    clock = MovedClock()
    pool = ModelDatabase(clock).pool("account")
    kit = LedgerKit(
        "model:",
        pool,
        Ledger(pool, SystemClock()),
        AccountStore(pool, read_chart().kinds),
        DayStore(pool),
        ReadingStore(pool),
    )
    await open_book(pool, kit.days, 0, BASE_DATE, "test")
    await Player(ModelBooks(kit, clock, f"tenant-{scenario.name}"), scenario.name).play(scenario)
    await kit.assert_books_fit()
    await kit.ledger.drain()
