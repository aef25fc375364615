"""Identifiers: who makes them, what is inside, how internal ones are derived.

An id is `<prefix>_` and 26 characters of Crockford's base 32 in lower case: ten for the time in
milliseconds, two for the book, fourteen of randomness (70 bits). So ids of one kind sort by time,
and tables can be partitioned by the time inside the id. To readers an id is opaque.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from common.clock import Clock

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES: Final = {letter: value for value, letter in enumerate(_ALPHABET)}
_TIME_LENGTH: Final = 10
_BOOK_LENGTH: Final = 2
_RANDOM_LENGTH: Final = 14
_FORM: Final = re.compile(rf"^([a-z]{{3}})_([{_ALPHABET}]{{26}})\Z")
_BOOK_AT: Final = slice(14, 16)
_KINDS_MAX: Final = 128

BOOK_DEFAULT: Final = 0
"""The one book of a small installation."""

BOOKS_MAX: Final = 32**_BOOK_LENGTH
"""Books are numbered 0 … 1023."""

ID_LENGTH: Final = 30
"""Characters of every id, prefix included."""

ID_AHEAD_MAX: Final = timedelta(minutes=5)
"""An id may come from this far in the future: clocks of two machines differ."""


class MalformedIdError(ValueError):
    """The text is no id of the expected kind."""


def _encode(value: int, length: int) -> str:
    letters = []
    for _ in range(length):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return "".join(reversed(letters))


def _decode(text: str) -> int:
    value = 0
    for letter in text:
        value = value * 32 + _VALUES[letter]
    return value


_BOOKS: Final = {_encode(book, _BOOK_LENGTH): book for book in range(BOOKS_MAX)}


def encode_time(at: datetime) -> str:
    """Return the ten characters that stand for `at`; they sort as the instants do."""
    return _encode(int(at.timestamp() * 1000), _TIME_LENGTH)


class IdFactory:
    """Makes new ids from a clock and a source of randomness."""

    def __init__(self, clock: Clock, random_bits: Callable[[int], int] = secrets.randbits) -> None:
        self._clock = clock
        self._random_bits = random_bits

    def new(self, prefix: str, book: int = BOOK_DEFAULT) -> str:
        """Return a new id of the kind `prefix` (three letters) in `book`."""
        return (
            f"{prefix}_{encode_time(self._clock.now())}{_encode(book, _BOOK_LENGTH)}"
            f"{_encode(self._random_bits(70), _RANDOM_LENGTH)}"
        )


def derive(prefix: str, parent: str, *parts: str | int) -> str:
    """Return the id of an internal step: the same for the same parent and parts, for ever.

    The time and book are the parent's, so a step lands in its parent's partition; the rest is a
    hash of the parent and the parts (for a step: its name and the attempt's number).
    """
    match = _FORM.match(parent)
    if match is None:
        raise MalformedIdError(f"{parent!r} is no id to derive from")
    return f"{prefix}_{match[2][: _TIME_LENGTH + _BOOK_LENGTH]}{_hash_letters(parent, parts)}"


def derive_timeless(prefix: str, *parts: str | int, book: int = BOOK_DEFAULT) -> str:
    """Return the id of a thing that has no birth: a platform account, a system party."""
    head = _encode(0, _TIME_LENGTH) + _encode(book, _BOOK_LENGTH)
    return f"{prefix}_{head}{_hash_letters('', parts)}"


def _hash_letters(parent: str, parts: tuple[str | int, ...]) -> str:
    text = "\x1f".join((parent, *(str(part) for part in parts)))
    digest = hashlib.sha256(text.encode()).digest()
    return _encode(int.from_bytes(digest[:9], "big"), _RANDOM_LENGTH)


def is_id(text: str, prefix: str | None = None) -> bool:
    """Say whether `text` has the form of an id (of the kind `prefix`, when given)."""
    return (_FORM.match if prefix is None else _match_of(prefix))(text) is not None


@lru_cache(maxsize=_KINDS_MAX)
def _match_of(prefix: str) -> Callable[[str], re.Match[str] | None]:
    # Without groups, and with the kind inside: a ledger asks four times for each transfer.
    return re.compile(rf"{re.escape(prefix)}_[{_ALPHABET}]{{26}}\Z").match


def check_id(text: str, prefix: str) -> str:
    """Return `text` when it is an id of the kind `prefix`; raises MalformedIdError."""
    if not is_id(text, prefix):
        raise MalformedIdError(f"not an id of the form {prefix}_…")
    return text


def time_of(text: str) -> datetime:
    """Return the instant inside an id, to the millisecond, in UTC."""
    match = _FORM.match(text)
    if match is None:
        raise MalformedIdError(f"{text!r} is no id")
    return datetime.fromtimestamp(_decode(match[2][:_TIME_LENGTH]) / 1000, UTC)


def book_of(text: str) -> int:
    """Return the book inside an id."""
    if _FORM.match(text) is None:
        raise MalformedIdError(f"{text!r} is no id")
    return _BOOKS[text[_BOOK_AT]]


def channel_reference(text: str) -> str:
    """Return the id as a reference for outside parties: at most 32 of `[A-Za-z0-9]`."""
    return text.replace("_", "")


def id_from_reference(reference: str) -> str:
    """Return the id whose `channel_reference` this is; raises MalformedIdError."""
    text = f"{reference[:3]}_{reference[3:]}"
    if not is_id(text):
        raise MalformedIdError("not a reference of ours")
    return text
