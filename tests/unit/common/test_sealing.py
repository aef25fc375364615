"""Sealed values open for their context and keys, and for nothing else."""

from __future__ import annotations

import pytest

from common.sealing import SealBrokenError, Sealer


def test_opening_under_the_same_context_gives_the_value_back() -> None:
    sealer = Sealer.parse("a:first secret")
    sealed = sealer.seal(b"whsec", "endpoints.secret:whk_1")
    assert b"whsec" not in sealed
    assert sealer.open(sealed, "endpoints.secret:whk_1") == b"whsec"
    assert sealer.seal(b"whsec", "endpoints.secret:whk_1") != sealed


def test_opening_for_another_row_is_refused() -> None:
    sealer = Sealer.parse("a:first secret")
    sealed = sealer.seal(b"value", "row 1")
    with pytest.raises(SealBrokenError):
        sealer.open(sealed, "row 2")


@pytest.mark.parametrize("place", range(0, 100, 7))
def test_opening_altered_bytes_is_refused(place: int) -> None:
    sealer = Sealer.parse("a:first secret")
    sealed = bytearray(sealer.seal(b"value", "row"))
    sealed[place % len(sealed)] ^= 1
    with pytest.raises(SealBrokenError):
        sealer.open(bytes(sealed), "row")


@pytest.mark.parametrize("junk", [b"", b"\x01", b"\x01\x05", b"\x02\x01a" + bytes(100)])
def test_opening_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(SealBrokenError):
        Sealer.parse("a:secret").open(junk, "row")


def test_rotating_keys_keeps_old_values_readable_until_they_are_resealed() -> None:
    old = Sealer.parse("a:first secret")
    both = Sealer.parse("b:second secret, a:first secret")
    new = Sealer.parse("b:second secret")
    sealed = old.seal(b"value", "row")
    assert not both.is_current(sealed)
    with pytest.raises(SealBrokenError):
        new.open(sealed, "row")
    resealed = both.reseal(sealed, "row")
    assert both.is_current(resealed)
    assert new.open(resealed, "row") == b"value"


@pytest.mark.parametrize("text", ["", "a:", "a:x,a:y", f"{'k' * 40}:x"])
def test_parsing_unusable_keys_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Sealer.parse(text)
