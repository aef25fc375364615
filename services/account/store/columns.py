"""The columns of a batch as texts, which the server takes apart again.

asyncpg asks of each element of an array whether it is itself a container, and for the forty columns
of a thousand transfers that took longer than to decide them. A column joined to one text costs a
fifth of it here and no more there (`string_to_array`, or the array's own literal for numbers).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain


def separator_for(*columns: Iterable[str]) -> str:
    """Return a text that none of the values contains, to join and split them by."""
    text = "".join(chain.from_iterable(columns))
    separator = "\x1f"
    while separator in text:
        # Its first letter stays the only one of its kind in it, so that the end of a value and the
        # separator together never look like an earlier separator.
        separator += "\x1e"
    return separator


def numbers(values: Sequence[int]) -> str:
    """Return the literal of an array of numbers; of an empty one when all of them are 0."""
    return "{" + ",".join(map(str, values)) + "}" if any(values) else "{}"


def flags(values: Sequence[bool]) -> str:
    """Return the literal of an array of truth values; of an empty one when none is true."""
    return (
        "{" + ",".join(["t" if value else "f" for value in values]) + "}" if any(values) else "{}"
    )
