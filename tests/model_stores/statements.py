"""Which function stands for which named statement, and which statements nothing stands for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol, TypeVar

from common.db.queries import load_queries
from tests.model_stores.rows import Row
from tests.model_stores.tables import Table


class Rows(Protocol):
    """What a statement works on: the tables of one schema, and the server's clock."""

    def __getitem__(self, name: str) -> Table:
        """A table."""
        ...

    def now(self) -> Any:
        """The server's clock."""
        ...

    def next_number(self, sequence: str) -> int:
        """The next number of a sequence; numbers that a lost transaction took are gone."""
        ...


Answer = list[Row] | None
Statement = Callable[..., Answer]
S = TypeVar("S", bound=Statement)


class StatementBook:
    """The models of one file of statements: functions called as the statements are.

    Args:
        source: the package of the statements.
        file: the file's name.
        not_modelled: patterns of names that nothing stands for, each with the reason.
    """

    def __init__(
        self,
        source: str,
        file: str = "queries.sql",
        *,
        not_modelled: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self._file = file
        self.not_modelled: Final[dict[str, str]] = dict(not_modelled or {})
        self._functions: dict[str, Statement] = {}

    def model(self, function: S) -> S:
        """Let a function stand for the statement of its name (without `_` at the end)."""
        name = function.__name__.rstrip("_")
        if name in self._functions:
            raise RuntimeError(f"{self.source}: two models of {name}")
        self._functions[name] = function
        return function

    def by_text(self) -> dict[str, tuple[str, Statement]]:
        """Return the models by the text of their statement, each with its name."""
        queries = load_queries(self.source, self._file)
        return {
            queries[name]: (name, function)
            for name, function in self._functions.items()
            if name in queries
        }

    def misfits(self) -> list[str]:
        """Return statements that are neither modelled nor excused, and models of none."""
        queries = load_queries(self.source, self._file)
        return sorted(
            name
            for name in queries.keys() ^ self._functions.keys()
            if name in self._functions
            or not any(fnmatchcase(name, pattern) for pattern in self.not_modelled)
        )
