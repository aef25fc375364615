"""The table of safeties fits the code; `make mutations` runs it."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.mutations.safety import Safety
from tests.mutations.table import SAFETIES


@pytest.mark.parametrize("safety", SAFETIES, ids=lambda safety: safety.name)
def test_safety_can_be_taken_away_and_is_watched(safety: Safety) -> None:
    """Its text is in its file exactly once, what is left is code, and its tests exist."""
    safety.check()
    assert safety.before != safety.after
    assert safety.protects.endswith(".")


def test_names_of_safeties_are_unique() -> None:
    names = Counter(safety.name for safety in SAFETIES)
    assert not [name for name, count in names.items() if count > 1]


def test_no_piece_of_code_stands_for_two_safeties() -> None:
    pieces = Counter((safety.file, safety.before, safety.after) for safety in SAFETIES)
    assert not [file for (file, _, _), count in pieces.items() if count > 1]
