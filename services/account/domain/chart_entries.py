"""Entries of the chart's files, read strictly: what is wrong is named by file, entry and key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

_TEXT_MAX: Final = 100
_VERSION_MAX: Final = 1_000_000

Choice = TypeVar("Choice")


class ChartError(Exception):
    """A file of the chart of accounts is wrong; the message names the file, the entry and why."""


class Entry:
    """One `[[…]]` of a file."""

    def __init__(self, file: str, noun: str, place: int, values: object, key: str) -> None:
        self._where = f"{file}: {noun} {place}"
        if not isinstance(values, Mapping):
            raise ChartError(f"{self._where}: is no table")
        self._values: Mapping[str, Any] = values
        self._known: set[str] = set()
        name = values.get(key)
        if isinstance(name, str) and name:
            self._where = f"{file}: {noun} {name!r}"

    def fault(self, problem: str) -> ChartError:
        """Return the error that says what is wrong with this entry."""
        return ChartError(f"{self._where}: {problem}")

    def text(self, key: str, *, default: str | None = None) -> str:
        """Return a text of 1 to 100 characters."""
        value = self._take(key, default)
        if value == default and default is not None:
            return default
        if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX:
            raise self.fault(f"{key} must be a text of 1 to {_TEXT_MAX} characters")
        if not value.isprintable():
            raise self.fault(f"{key} has characters that cannot be printed")
        return value

    def flag(self, key: str) -> bool:
        """Return true or false; false where the key is missing."""
        value = self._take(key, False)
        if not isinstance(value, bool):
            raise self.fault(f"{key} must be true or false")
        return value

    def version(self, key: str) -> int:
        """Return a number from 1."""
        value = self._take(key, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _VERSION_MAX:
            raise self.fault(f"{key} must be a number from 1")
        return value

    def choice(self, key: str, make: Callable[[str], Choice], choices: Iterator[str]) -> Choice:
        """Return one of an enumeration, written in lower case."""
        value = self._take(key, None)
        names = [name.lower() for name in choices]
        if value not in names:
            raise self.fault(f"{key} must be one of {', '.join(names)}")
        return make(str(value).upper())

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts, which has at least one."""
        value = self._take(key, None)
        if (
            not isinstance(value, list)
            or not value
            or not all(isinstance(one, str) for one in value)
        ):
            raise self.fault(f"{key} must be a list of texts")
        return tuple(value)

    def finish(self) -> None:
        """Raise ChartError when the entry has keys that nothing reads."""
        unknown = sorted(set(self._values) - self._known)
        if unknown:
            raise self.fault(f"unknown key {', '.join(unknown)}")

    def _take(self, key: str, default: object) -> object:
        self._known.add(key)
        value = self._values.get(key, default)
        if value is None:
            raise self.fault(f"{key} is missing")
        return value


def read_entries(file: str, content: Mapping[str, Any], noun: str, key: str) -> Iterator[Entry]:
    """Return the `[[noun]]` entries of a file; `key` is what messages call them by."""
    values = content.get(noun)
    if not isinstance(values, list) or not values:
        raise ChartError(f"{file}: has no [[{noun}]]")
    return (Entry(file, noun, place, one, key) for place, one in enumerate(values, start=1))


def check_keys(file: str, content: Mapping[str, Any], known: set[str]) -> None:
    """Raise ChartError when the file has keys at its top that nothing reads."""
    unknown = sorted(set(content) - known)
    if unknown:
        raise ChartError(f"{file}: unknown key {', '.join(unknown)}")
