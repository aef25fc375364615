"""The janitor and a live flow at once, at every point where one can overtake the other.

The live flow is held before one of its steps while everything that is due runs to its end; then it
goes on with what it had read long ago. Both fence each other by versions and repeat each other's
ids, so whoever is first, the money moves once.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from flow_scenarios import SCENARIOS
from overtaking import Overtaken
from payment_kit import PaymentKit

from common.errors import PaymeshError

STEPS_MAX = 60
JANITOR_SECONDS = 35


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_live_flow_overtaken_by_the_janitor_ends_well(
    payment: PaymentKit, name: str
) -> None:
    scenario = SCENARIOS[name]
    for step in range(STEPS_MAX):
        case = await scenario.begin(payment)

        async def janitor() -> None:
            await payment.run_due(JANITOR_SECONDS)

        fault = Overtaken(step, others=janitor)
        with suppress(PaymeshError):
            await scenario.act(case, payment.parts(fault))
        await scenario.finish(case)
        await scenario.check(case)
        if not fault.reached:
            break
    else:
        pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
    assert step >= scenario.steps_min
