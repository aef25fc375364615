"""Ids sort by time, carry their book, and derive the same step from the same parent for ever."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import (
    BOOKS_MAX,
    ID_LENGTH,
    IdFactory,
    MalformedIdError,
    book_of,
    channel_reference,
    check_id,
    derive,
    derive_timeless,
    id_from_reference,
    is_id,
    time_of,
)

INSTANTS = st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
BOOKS = st.integers(0, BOOKS_MAX - 1)
PREFIXES = st.text(string.ascii_lowercase, min_size=3, max_size=3)
RANDOM_BITS = st.integers(0, 2**70 - 1)
MILLISECOND = timedelta(milliseconds=1)


class _Clock:
    """Stands still."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return 0.0


def _new(at: datetime, prefix: str = "tst", book: int = 0, random_bits: int = 0) -> str:
    return IdFactory(_Clock(at), lambda _: random_bits).new(prefix, book)


@given(INSTANTS, PREFIXES, BOOKS, RANDOM_BITS)
def test_new_id_carries_time_and_book(
    at: datetime, prefix: str, book: int, random_bits: int
) -> None:
    made = _new(at, prefix, book, random_bits)
    assert len(made) == ID_LENGTH
    assert is_id(made)
    assert is_id(made, prefix)
    assert check_id(made, prefix) == made
    assert abs(time_of(made) - at) <= MILLISECOND
    assert book_of(made) == book


@given(INSTANTS, INSTANTS, RANDOM_BITS, RANDOM_BITS)
def test_ids_sort_by_time(one: datetime, other: datetime, bits: int, other_bits: int) -> None:
    if abs(one - other) > MILLISECOND:
        assert (one < other) == (_new(one, random_bits=bits) < _new(other, random_bits=other_bits))


@given(INSTANTS, BOOKS, st.lists(st.integers() | st.text(max_size=5), max_size=3))
def test_derived_id_stays_with_its_parent(at: datetime, book: int, parts: list[str | int]) -> None:
    parent = _new(at, "pay", book)
    step = derive("tfr", parent, *parts)
    assert is_id(step, "tfr")
    assert step == derive("tfr", parent, *parts)
    assert (time_of(step), book_of(step)) == (time_of(parent), book)


def test_derived_ids_differ_by_parent_and_parts() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    parents = [_new(at, "pay", random_bits=bits) for bits in range(20)]
    made = {
        derive("tfr", parent, step, attempt)
        for parent in parents
        for step in ("settle", "fee")
        for attempt in range(5)
    }
    assert len(made) == 20 * 2 * 5
    # The same letters, cut elsewhere, are other parts.
    assert derive("tfr", parents[0], "a", "bc") != derive("tfr", parents[0], "ab", "c")


def test_timeless_ids_need_no_birth() -> None:
    one = derive_timeless("acc", "platform", "USD")
    assert one == derive_timeless("acc", "platform", "USD")
    assert one != derive_timeless("acc", "platform", "CNY")
    assert book_of(derive_timeless("acc", "platform", book=7)) == 7
    assert time_of(one) == datetime(1970, 1, 1, tzinfo=UTC)


@given(INSTANTS, PREFIXES, RANDOM_BITS)
def test_reference_for_outside_parties_leads_back(at: datetime, prefix: str, bits: int) -> None:
    made = _new(at, prefix, random_bits=bits)
    reference = channel_reference(made)
    assert len(reference) <= 32
    assert reference.isascii()
    assert reference.isalnum()
    assert id_from_reference(reference) == made


@given(st.text(max_size=40))
def test_reading_any_text_says_that_it_is_no_id(text: str) -> None:
    if is_id(text):
        return
    for read in (time_of, book_of, id_from_reference):
        with pytest.raises(MalformedIdError):
            read(text)
    with pytest.raises(MalformedIdError):
        check_id(text, "tst")
    with pytest.raises(MalformedIdError):
        derive("tfr", text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay",
        "pay_",
        "PAY_01jd0000000000000000000000",
        "pay_01jd000000000000000000000i",
        "pay_01jd00000000000000000000000",
        "pay_01jd000000000000000000000",
        "pay_01jd0000000000000000000000\n",
        " pay_01jd0000000000000000000000",
        "pay-01jd0000000000000000000000",
    ],
)
def test_text_of_another_form_is_no_id(text: str) -> None:
    assert not is_id(text)


def test_id_of_another_kind_is_refused() -> None:
    made = _new(datetime(2026, 1, 1, tzinfo=UTC), "pay")
    assert not is_id(made, "trd")
    with pytest.raises(MalformedIdError, match="trd_"):
        check_id(made, "trd")


def test_random_ids_do_not_repeat() -> None:
    factory = IdFactory(_Clock(datetime(2026, 1, 1, tzinfo=UTC)))
    assert len({factory.new("tst") for _ in range(1000)}) == 1000
