"""Rows as a driver answers them: values by name or by place, each answer a copy of its own."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

Values = dict[str, Any]
"""A row as a table keeps it, by column. Never changed in place: a change is another dict."""


class Json:
    """A `jsonb` value, kept as bytes so that nobody who reads it can change what is kept."""

    __slots__ = ("_data",)

    def __init__(self, value: object) -> None:
        self._data = orjson.dumps(value)

    def load(self) -> Any:
        """Return the value, made anew."""
        return orjson.loads(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Json) and self.load() == other.load()

    def __hash__(self) -> int:
        return hash(self._data)


def kept(value: Any) -> Any:
    """Return a value as a table keeps it: immutable, and of a plain type."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return Json(value)
    if isinstance(value, list | tuple):
        return tuple(kept(one) for one in value)
    if isinstance(value, bytearray | memoryview):
        return bytes(value)
    return value


def answered(value: Any) -> Any:
    """Return a kept value as the driver answers it."""
    if isinstance(value, Json):
        return value.load()
    if isinstance(value, tuple):
        return [answered(one) for one in value]
    return value


class Row:
    """One answered row (`common.db.types.Record`)."""

    __slots__ = ("_columns", "_values")

    def __init__(self, columns: tuple[str, ...], values: Sequence[Any]) -> None:
        self._columns = columns
        self._values = tuple(values)

    def __getitem__(self, key: str | int | slice) -> Any:
        """The value of a column, or those of several."""
        return self._values[self._place(key) if isinstance(key, str) else key]

    def __len__(self) -> int:
        """How many columns."""
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        """The values, in the order of the columns."""
        return iter(self._values)

    def __repr__(self) -> str:
        return f"<Row {dict(self.items())}>"

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a column, or `default` where there is no such column."""
        return self[key] if key in self._columns else default

    def keys(self) -> Iterator[str]:
        """Names of the columns."""
        return iter(self._columns)

    def values(self) -> Iterator[Any]:
        """Values of the columns."""
        return iter(self._values)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Names and values of the columns."""
        return zip(self._columns, self._values, strict=True)

    def _place(self, key: str) -> int:
        try:
            return self._columns.index(key)
        except ValueError:
            raise KeyError(key) from None


class Shape:
    """The columns that a statement answers, in their order."""

    def __init__(self, columns: str) -> None:
        self.columns = tuple(columns.split())

    def row(self, values: Values, **others: Any) -> Row:
        """Answer one kept row; `others` are columns that are computed or renamed."""
        merged = {**values, **others} if others else values
        return Row(self.columns, [answered(merged[name]) for name in self.columns])

    def rows(self, many: Iterable[Values]) -> list[Row]:
        """Answer kept rows."""
        return [self.row(values) for values in many]
