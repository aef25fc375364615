"""Seeds of `paymesh chaos`, and the command that repeats a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.cli.demo.chaos import SeedsError, read_seeds
from services.cli.demo.run import Wishes


def test_numbers_and_ranges_name_each_seed_once() -> None:
    assert read_seeds("1-3") == [1, 2, 3]
    assert read_seeds("7, 2-3,3") == [7, 2, 3]


@pytest.mark.parametrize("text", ["", "x", "3-1", "1-", "-5", "1,,2", "1-2-3"])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(SeedsError):
        read_seeds(text)


def test_failed_run_says_how_to_repeat_it() -> None:
    wishes = Wishes(
        limit=60, seed=7, kills=("payment@3",), input_file=Path("a.txt"), topology=Path("b.toml")
    )
    assert wishes.is_under_fire
    assert wishes.command == (
        "paymesh demo --faults 7 --kill payment@3 --limit 60 --input a.txt --topology b.toml"
    )
    assert Wishes().command == "paymesh demo"
    assert not Wishes().is_under_fire
