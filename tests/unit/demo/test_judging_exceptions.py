"""What the two people at the desk do: by chance of seed and number, and only what is safe."""

from __future__ import annotations

from collections import Counter

import pytest
from paymesh.payment.v1 import PaymentException

from services.cli.demo.desk import judge

KINDS = {
    "AMOUNT_MISMATCH": ["RETURN"],
    "RETURN_REFUSED": ["RETRY", "MOVE_TO_UNCLAIMED"],
    "OUTCOME_UNKNOWN": ["ASK", "FAIL"],
    "LEDGER_REFUSED": ["RETRY"],
    "CALLBACK_CONTRADICTION": ["ASK", "DISMISS"],
}


def _exceptions(kind: str, count: int = 400) -> list[PaymentException]:
    actions = KINDS[kind]
    return [
        PaymentException(id=f"exc_{n}", kind=kind, actions=actions, default_action=actions[0])
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_some_are_looked_at_some_refused_and_the_rest_left_to_the_deadline(kind: str) -> None:
    judged = [judge(1, exception) for exception in _exceptions(kind)]
    counts = Counter((bool(one.action), one.approved) for one in judged)
    assert counts[True, True] > counts[True, False] > 0
    assert counts[False, True] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_needs_no_statement_of_the_channel_is_proposed(kind: str) -> None:
    actions = {judge(1, exception).action for exception in _exceptions(kind)} - {""}
    assert actions <= set(KINDS[kind]) - {"FAIL", "MOVE_TO_UNCLAIMED"}


def test_judging_twice_gives_the_same() -> None:
    for exception in _exceptions("CALLBACK_CONTRADICTION"):
        assert judge(7, exception) == judge(7, exception)
    assert [judge(1, one) for one in _exceptions("RETURN_REFUSED")] != [
        judge(2, one) for one in _exceptions("RETURN_REFUSED")
    ]
