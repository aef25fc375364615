"""Ids, made by the caller and stored before they are sent: a repeat is then known for one.

An id is a prefix and 26 characters: ten for the time in milliseconds, two for the book, fourteen
of randomness. A transfer has to be in the book of its accounts.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_LENGTH: Final = 14
_FORM: Final = re.compile(rf"^[a-z]{{3}}_[{_ALPHABET}]{{26}}\Z")


def _letters(value: int, length: int) -> str:
    letters = []
    for _ in range(length):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(letters))


def new_id(prefix: str, *, beside: str = "") -> str:
    """Return a new id of the kind `prefix` (`acc`, `tfr`), in the book of the id `beside`."""
    book = _checked(beside)[14:16] if beside else "00"
    now = _letters(time.time_ns() // 1_000_000, 10)
    return f"{prefix}_{now}{book}{_letters(secrets.randbits(70), _RANDOM_LENGTH)}"


def derive_id(prefix: str, parent: str, *parts: str | int) -> str:
    """Return the id of a step of `parent`: the same for the same parts, for ever.

    For steps that a program repeats after a crash: only the parent's id has to be stored. The time
    inside is the parent's, so the step has to follow while that is in the ledger's window.
    """
    text = "\x1f".join((_checked(parent), *(str(part) for part in parts)))
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:9], "big")
    return f"{prefix}_{parent[4:16]}{_letters(value, _RANDOM_LENGTH)}"


def _checked(text: str) -> str:
    if _FORM.match(text) is None:
        raise ValueError(f"{text!r} is no id")
    return text
