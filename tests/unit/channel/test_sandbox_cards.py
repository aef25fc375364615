"""Test cards decide what the bank says, and look like cards."""

from __future__ import annotations

import pytest

from services.sandbox.cards import CardBehaviour, Verdict, luhn_digit, masked, test_card, verdict_on


@pytest.mark.parametrize("behaviour", list(CardBehaviour))
def test_every_behaviour_is_what_its_cards_do(behaviour: CardBehaviour) -> None:
    for serial in (0, 1, 9_999_999):
        number = test_card(behaviour, serial)
        assert len(number) == 16
        assert luhn_digit(number[:-1]) == number[-1]
        slow = {CardBehaviour.APPROVE_SLOWLY: "00", CardBehaviour.DECLINE_SLOWLY: "64"}
        expected = slow.get(behaviour, behaviour.value)
        assert verdict_on(number) == Verdict(behaviour.value, expected)


def test_other_cards_are_approved_when_their_digit_fits() -> None:
    assert verdict_on("4111111111111111") == Verdict("00", "00")
    assert verdict_on("4111111111111112") == Verdict("61", "61")
    assert verdict_on("411111111111111x") == Verdict("61", "61")
    assert verdict_on("") == Verdict("61", "61")


def test_serial_numbers_are_bounded() -> None:
    with pytest.raises(ValueError, match="seven digits"):
        test_card(CardBehaviour.APPROVE, 10_000_000)


def test_masking_keeps_the_ends() -> None:
    assert masked("4111111111111111") == "411111******1111"
    assert masked("123") == "****"
