"""Tables with their keys and constraints, and the journal by which a transaction is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.model_stores.rows import Values, kept

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Unique:
    """Columns whose values together stand in one row only."""

    columns: tuple[str, ...]
    when: Callable[[Values], bool] | None = None
    """Only rows for which this holds take part."""

    def key_of(self, row: Values) -> Key | None:
        """Return the row's values, or None when it takes no part."""
        if self.when is not None and not self.when(row):
            return None
        return tuple(row[name] for name in self.columns)


@dataclass(frozen=True)
class TableSpec:
    """What a migration says of a table."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    unique: tuple[Unique, ...] = ()
    nullable: frozenset[str] = frozenset()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """What a column is when an insert does not name it."""
    checks: Mapping[str, Callable[[Values], bool]] = field(default_factory=dict)
    """Conditions by the name of the constraint."""
    append_only: bool = False
    not_modelled: frozenset[str] = frozenset()
    """Columns of the real table that the model leaves out."""


def spec(name: str, columns: str, key: str, **others: Any) -> TableSpec:
    """Return a table's spec; lists of columns are given as words."""
    nullable = frozenset(others.pop("nullable", "").split())
    not_modelled = frozenset(others.pop("not_modelled", "").split())
    return TableSpec(
        name,
        tuple(columns.split()),
        tuple(key.split()),
        nullable=nullable,
        not_modelled=not_modelled,
        **others,
    )


class Journal:
    """Who has a transaction open, and what it has changed so far, so that it can be undone."""

    def __init__(self) -> None:
        self._changes: list[tuple[Table, Key, Values | None]] = []
        self._owner: object | None = None

    def open(self, owner: object) -> bool:
        """Let a transaction begin; False while another's is open."""
        if self._owner is not None:
            return False
        self._owner = owner
        return True

    def note(self, table: Table, key: Key, before: Values | None) -> None:
        """Remember what a row was; None for one that was not there."""
        self._changes.append((table, key, before))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was changed."""
        return not self._changes

    def commit(self, owner: object) -> None:
        """Let all stay as it is now; for an owner without an open transaction, nothing."""
        if self._owner is owner:
            self._changes.clear()
            self._owner = None

    def undo(self, owner: object) -> None:
        """Let all be as it was; for an owner without an open transaction, nothing."""
        if self._owner is not owner:
            return
        changes, self._changes = self._changes, []
        self._owner = None
        for table, key, before in reversed(changes):
            table.put_back(key, before)


class Table:
    """The rows of one table, in the order in which they came."""

    def __init__(self, table_spec: TableSpec, journal: Journal) -> None:
        self.spec = table_spec
        self._journal = journal
        self._rows: dict[Key, Values] = {}
        self._indexes: list[tuple[Unique, dict[Key, Key]]] = [
            (unique, {}) for unique in table_spec.unique
        ]

    # Reads.

    def rows(self) -> list[Values]:
        """Return all rows."""
        return list(self._rows.values())

    def get(self, *key: Any) -> Values | None:
        """Return the row of a key."""
        return self._rows.get(key)

    def find(self, **wanted: Any) -> list[Values]:
        """Return the rows that have these values."""
        return [
            row
            for row in self._rows.values()
            if all(row[name] == value for name, value in wanted.items())
        ]

    def find_keys(self, keys: Iterable[Any], *before: Any) -> list[Values]:
        """Return the rows of keys whose last column is one of `keys`, each once, by that column."""
        found = [self._rows.get((*before, key)) for key in sorted(set(keys))]
        return [row for row in found if row is not None]

    # Writes.

    def insert(self, values: Mapping[str, Any]) -> Values:
        """Add a row; raises what the server would."""
        row = self._complete(values)
        taken = self._conflict(row, None)
        if taken is not None:
            raise asyncpg.UniqueViolationError(
                f'duplicate key value violates unique constraint of "{self.spec.name}": {taken}'
            )
        self._write(row)
        return row

    def insert_new(self, values: Mapping[str, Any], *, by_key: bool = False) -> Values | None:
        """Add a row unless one is in its way (ON CONFLICT DO NOTHING); None when one is.

        `by_key`: only one of the same key is, and any other unique value is an error.
        """
        row = self._complete(values)
        if by_key and self._key(row) not in self._rows:
            return self.insert(values)
        if self._conflict(row, None) is not None:
            return None
        self._write(row)
        return row

    def insert_columns(
        self, names: str, columns: Sequence[Sequence[Any]], **constants: Any
    ) -> list[Values]:
        """Add rows given as columns."""
        return [self.insert({**constants, **row}) for row in by_row(names, columns)]

    def insert_new_columns(
        self, names: str, columns: Sequence[Sequence[Any]], **constants: Any
    ) -> list[Values]:
        """Add those rows that have nothing in their way; return them."""
        added = [self.insert_new({**constants, **row}) for row in by_row(names, columns)]
        return [row for row in added if row is not None]

    def update(self, row: Values, **changes: Any) -> Values:
        """Change a row that is there; return it afterwards."""
        self._refuse_change()
        after = {**row, **{name: kept(value) for name, value in changes.items()}}
        self._check(after)
        taken = self._conflict(after, self._key(row))
        if taken is not None:
            raise asyncpg.UniqueViolationError(
                f'duplicate key value violates unique constraint of "{self.spec.name}": {taken}'
            )
        self._write(after)
        return after

    def delete(self, row: Values) -> None:
        """Take a row out."""
        self._refuse_change()
        key = self._key(row)
        self._journal.note(self, key, self._rows[key])
        self._place(key, None)

    def put_back(self, key: Key, before: Values | None) -> None:
        """Undo a change."""
        self._place(key, before)

    def _key(self, row: Values) -> Key:
        return tuple(row[name] for name in self.spec.key)

    def _complete(self, values: Mapping[str, Any]) -> Values:
        unknown = values.keys() - set(self.spec.columns)
        if unknown:
            raise asyncpg.UndefinedColumnError(f"{self.spec.name} has no {sorted(unknown)}")
        row: Values = {}
        for name in self.spec.columns:
            if name in values:
                row[name] = kept(values[name])
            else:
                row[name] = self.spec.defaults.get(name)
        self._check(row)
        return row

    def _check(self, row: Values) -> None:
        for name, value in row.items():
            if value is None and name not in self.spec.nullable:
                raise asyncpg.NotNullViolationError(f'"{name}" of {self.spec.name} is null')
        for name, holds in self.spec.checks.items():
            if not holds(row):
                raise asyncpg.CheckViolationError(
                    f'a row of "{self.spec.name}" violates check constraint "{name}"'
                )

    def _conflict(self, row: Values, own: Key | None) -> Key | None:
        key = self._key(row)
        if key != own and key in self._rows:
            return key
        for unique, index in self._indexes:
            wanted = unique.key_of(row)
            if wanted is not None and index.get(wanted, own) != own:
                return wanted
        return None

    def _write(self, row: Values) -> None:
        key = self._key(row)
        self._journal.note(self, key, self._rows.get(key))
        self._place(key, row)

    def _place(self, key: Key, row: Values | None) -> None:
        before = self._rows.get(key)
        for unique, index in self._indexes:
            old = None if before is None else unique.key_of(before)
            new = None if row is None else unique.key_of(row)
            if old is not None and old != new and index.get(old) == key:
                del index[old]
            if new is not None:
                index[new] = key
        if row is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = row

    def _refuse_change(self) -> None:
        if self.spec.append_only:
            raise asyncpg.RestrictViolationError(f"{self.spec.name} is append-only")


def by_row(names: str, columns: Sequence[Sequence[Any]]) -> list[Values]:
    """Return rows given as columns, as `unnest` does."""
    words = names.split()
    if len(words) != len(columns):
        raise asyncpg.PostgresSyntaxError(f"{len(columns)} columns for {len(words)} names")
    return [dict(zip(words, row, strict=True)) for row in zip(*columns, strict=True)]
