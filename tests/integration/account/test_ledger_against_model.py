"""The ledger against a plain model, exactly, also when several writers work at once."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.account.conftest import NewKit
from tests.integration.account.ledger_machine import LedgerMachine, World


async def test_posting_from_several_writers_answers_like_the_plain_model(new_kit: NewKit) -> None:
    await _run(new_kit, examples=14, steps=15)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_posting_for_long_from_several_writers_answers_like_the_plain_model(
    new_kit: NewKit,
) -> None:
    await _run(new_kit, examples=100, steps=40)


async def _run(new_kit: NewKit, *, examples: int, steps: int) -> None:
    writers = [await new_kit() for _ in range(3)]
    world = World(writers, asyncio.get_running_loop())
    machine = cast("type[LedgerMachine]", type("Machine", (LedgerMachine,), {"world": world}))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        # No shrinking: what writers do at once does not happen twice in the same way.
        phases=[Phase.generate],
        print_blob=True,
    )
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)
    await writers[0].assert_books_fit()
