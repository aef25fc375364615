"""Rules of member that need no database."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from services.member.domain import Status, is_card_number, is_public_key, may_move

_P = 2**255 - 19
SMALL_ORDER = [
    0,
    1,
    _P - 1,
    2707385501144840649318225287225658788936804267575313519463743609750303021806,
    55188659117513257062467267217118295137698188065244968500265048394206261417927,
]


@pytest.mark.parametrize(
    "number", ["4111111111111111", "6222021234567890128", "378282246310005", "000000000000"]
)
def test_numbers_with_a_right_check_digit_pass(number: str) -> None:
    assert is_card_number(number)


@pytest.mark.parametrize(
    "number", ["", "0" * 11, "0" * 20, "4111 1111 1111 1111", "٤" * 16, "a" * 16]
)
def test_what_is_no_card_number_is_refused(number: str) -> None:
    assert not is_card_number(number)


@given(st.text("0123456789", min_size=11, max_size=18), st.data())
def test_one_wrong_digit_is_always_noticed(head: str, data: st.DataObject) -> None:
    number = next(f"{head}{last}" for last in range(10) if is_card_number(f"{head}{last}"))
    place = data.draw(st.integers(0, len(number) - 1))
    digit = data.draw(st.sampled_from([one for one in "0123456789" if one != number[place]]))

    assert not is_card_number(number[:place] + digit + number[place + 1 :])


@given(st.binary(min_size=32, max_size=32))
def test_every_real_key_passes(seed: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    assert is_public_key(key)


@pytest.mark.parametrize("y", SMALL_ORDER)
@pytest.mark.parametrize("sign", [0, 1])
def test_points_of_small_order_are_refused(y: int, sign: int) -> None:
    """Under such a key one signature fits every message."""
    assert not is_public_key((y | sign << 255).to_bytes(32, "little"))


@pytest.mark.parametrize("y", [_P, _P + 1, 2**255 - 1])
def test_values_beyond_the_field_are_refused(y: int) -> None:
    assert not is_public_key(y.to_bytes(32, "little"))


def test_a_value_without_a_point_and_other_lengths_are_refused() -> None:
    assert not is_public_key((2).to_bytes(32, "little"))
    assert not is_public_key(b"")
    assert not is_public_key(b"\1" * 33)


def test_an_operator_opens_nobody_and_revives_nobody() -> None:
    allowed = {(a, b) for a in Status for b in Status if may_move(a, b)}

    assert allowed == {
        (Status.ACTIVE, Status.SUSPENDED),
        (Status.SUSPENDED, Status.ACTIVE),
        (Status.ACTIVE, Status.CLOSED),
        (Status.SUSPENDED, Status.CLOSED),
    }
