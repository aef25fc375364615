"""A process that dies at any step of any flow of money leaves nothing half-done for good.

Each scenario is done again and again, dying one step later each time, before the step's effect or
after it, until it runs through. After each death its caller repeats, the janitor asks, and the
desk's deadlines pass; then the money must have moved exactly once, as docs/money-flows.md says.
"""

from __future__ import annotations

import pytest
from flow_scenarios import SCENARIOS
from payment_kit import Crash, Fault, PaymentKit

STEPS_MAX = 60


@pytest.mark.parametrize("name", SCENARIOS)
async def test_walking_a_flow_books_what_the_page_says(payment: PaymentKit, name: str) -> None:
    scenario = SCENARIOS[name]
    case = await scenario.begin(payment)
    await scenario.act(case, payment.parts())
    if scenario.repeat is not None:
        await scenario.repeat(case, payment.parts())
    await payment.bring_to_rest()
    await scenario.check(case)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_dying_at_any_step_of_a_flow_moves_the_money_exactly_once(
    payment: PaymentKit, name: str, after: bool
) -> None:
    scenario = SCENARIOS[name]
    for step in range(STEPS_MAX):
        case = await scenario.begin(payment)
        died = False
        try:
            await scenario.act(case, payment.parts(Fault(step, after)))
        except Crash:
            died = True
        await scenario.finish(case)
        await scenario.check(case)
        if not died:
            break
    else:
        pytest.fail(f"the flow never ran through in {STEPS_MAX} steps")
    assert step >= scenario.steps_min  # it did die on the way
