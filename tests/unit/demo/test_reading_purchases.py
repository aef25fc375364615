"""The shop's file in both its forms: what is read, what is not, and why."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cli.demo.purchases import Purchase, read_purchases

SAMPLE = Path(__file__).parents[3] / "data" / "cdnow_sample.txt"


def test_sample_form_has_a_second_number_of_the_customer() -> None:
    purchases, unreadable = read_purchases([" 00004 0001 19970101  2   29.33\n"])
    assert purchases == [Purchase(1, "00004", date(1997, 1, 1), 2, 2933)]
    assert unreadable == []


def test_master_form_has_a_header() -> None:
    lines = ["ID DATE CDS DOLLARS\n", "00001 19970101 1 11.77\n", "00002 19970112 5 77.00\n"]
    purchases, unreadable = read_purchases(lines)
    assert [(one.line, one.customer, one.amount_minor) for one in purchases] == [
        (1, "00001", 1177),
        (2, "00002", 7700),
    ]
    assert unreadable == []


def test_both_forms_may_stand_in_one_file_with_any_line_ends() -> None:
    lines = ["\r\n", "00001 19970101 1 11.77\r\n", "   \n", "00001 0001 19970101 1 11.77"]
    purchases, unreadable = read_purchases(lines)
    assert [one.line for one in purchases] == [1, 2]
    assert unreadable == []


def test_limit_counts_data_lines_in_file_order_before_sorting() -> None:
    lines = ["ID DATE CDS DOLLARS", "", "1 19980101 1 1.00", "2 19970101 1 1.00", "3 19960101 1 1"]
    purchases, _ = read_purchases(lines, limit=2)
    assert [(one.line, one.customer) for one in purchases] == [(2, "2"), (1, "1")]
    assert read_purchases(lines, limit=0) == ([], [])


def test_limit_counts_unreadable_lines_too() -> None:
    purchases, unreadable = read_purchases(["1 19970101 1 x", "2 19970101 1 1.00"], limit=1)
    assert purchases == []
    assert [one.line for one in unreadable] == [1]


def test_purchases_of_one_day_keep_the_order_of_the_file() -> None:
    lines = [f"{customer} 19970101 1 1.00" for customer in (3, 1, 2)]
    purchases, _ = read_purchases(["9 19970102 1 1.00", *lines])
    assert [one.customer for one in purchases] == ["3", "1", "2", "9"]


def test_same_lines_are_different_purchases() -> None:
    purchases, _ = read_purchases(["1 19970101 1 1.00"] * 2)
    assert [one.line for one in purchases] == [1, 2]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("1 19970101 1", "3 columns"),
        ("1 2 19970101 1 1.00 USD", "6 columns"),
        ("1 19971301 1 1.00", "no date"),
        ("1 1997011 1 1.00", "no date"),
        ("1 1997-01-01 1 1.00", "no date"),
        ("1 19970101 one 1.00", "count of CDs"),
        ("1 19970101 -1 1.00", "count of CDs"),
        ("1 19970101 1 1.001", "dollars and cents"),
        ("1 19970101 1 1,00", "dollars and cents"),
        ("1 19970101 1 $1.00", "dollars and cents"),
        ("1 19970101 1 1e3", "dollars and cents"),
        ("1 19970101 1 99999999999999999999", "dollars and cents"),
        ("1 19970101 1 -1.00", "negative"),
        ("é1 19970101 1 1.00", "customer"),
        ("1\x00 19970101 1 1.00", "customer"),
    ],
)
def test_unreadable_line_is_reported_and_the_rest_goes_on(line: str, reason: str) -> None:
    purchases, unreadable = read_purchases(["7 19970101 1 1.00", line, "8 19970101 1 1.00"])
    assert [(one.line, one.customer) for one in purchases] == [(1, "7"), (3, "8")]
    (report,) = unreadable
    assert report.line == 2
    assert reason in report.reason


def test_order_for_nothing_is_a_purchase() -> None:
    purchases, _ = read_purchases(["1 19970101 1 0.00"])
    assert purchases[0].amount_minor == 0


@given(st.lists(st.text(max_size=30), max_size=10))
def test_reading_anything_accounts_for_every_line(lines: list[str]) -> None:
    purchases, unreadable = read_purchases(lines)
    numbers = sorted([one.line for one in purchases] + [one.line for one in unreadable])
    assert numbers == list(range(1, len(numbers) + 1))
    filled = sum(1 for line in lines if line.split())
    assert filled - 1 <= len(numbers) <= filled


def test_sample_has_the_sums_that_are_known_of_it() -> None:
    with SAMPLE.open(encoding="utf-8") as lines:
        purchases, unreadable = read_purchases(lines)
    assert not unreadable
    assert len(purchases) == 6919
    assert sum(one.amount_minor for one in purchases) == 24409194
    assert len({one.customer for one in purchases}) == 2357
    assert sum(1 for one in purchases if one.amount_minor == 0) == 8
    contents = {(one.customer, one.bought_on, one.cds, one.amount_minor) for one in purchases}
    assert len(purchases) - len(contents) == 21
    assert [one.bought_on for one in purchases] == sorted(one.bought_on for one in purchases)
