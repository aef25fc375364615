"""A page token is worth something only where it was issued, and only unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from common.errors import PageTokenInvalidError
from common.paging import PageTokens, page_size_of

TOKENS = PageTokens(SecretStr("secret"))
FILTERS = {"merchant_id": "mer_1", "state": None}


@given(st.lists(st.one_of(st.text(max_size=20), st.integers(-(2**63), 2**63 - 1)), max_size=4))
def test_a_token_gives_its_position_back(position: list[str | int]) -> None:
    try:
        token = TOKENS.issue("orders", position, FILTERS)
    except TypeError:  # half a surrogate pair is no text
        return
    assert TOKENS.read("orders", token, dict(reversed(FILTERS.items()))) == position


def test_no_token_is_the_first_page() -> None:
    assert TOKENS.read("orders", "", FILTERS) is None


def test_a_token_is_bound_to_list_filters_and_secret() -> None:
    token = TOKENS.issue("orders", ["ord_1"], FILTERS)
    for reader, name, filters in (
        (TOKENS, "refunds", FILTERS),
        (TOKENS, "orders", {**FILTERS, "merchant_id": "mer_2"}),
        (PageTokens("another"), "orders", FILTERS),
    ):
        with pytest.raises(PageTokenInvalidError):
            reader.read(name, token, filters)


@pytest.mark.parametrize("token", ["x", "=", "é", "A" * 2000, "AAAA", "not base64!", "\n"])
def test_nonsense_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalidError):
        TOKENS.read("orders", token, FILTERS)


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    token = TOKENS.issue("orders", ["ord_1", 5], FILTERS)
    place = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.sampled_from("ABCabc019-_"))
    changed = token[:place] + letter + token[place + 1 :]
    if changed != token:
        with pytest.raises(PageTokenInvalidError):
            TOKENS.read("orders", changed, FILTERS)


def test_page_sizes_are_bounded() -> None:
    assert [page_size_of(n) for n in (-1, 0, 1, 200, 201, 10**9)] == [50, 50, 1, 200, 200, 200]
    assert page_size_of(0, 20) == 20
