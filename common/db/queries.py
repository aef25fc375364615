"""SQL as named blocks in a `.sql` file, each with a line that says what it is for.

    -- name: find_order
    -- The order of a merchant's number, for repeats of its creation.
    SELECT trade_id, state FROM orders WHERE …;

A block ends where the next begins. Comments inside a statement stay in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

_NAME: Final = re.compile(r"^--\s*name:\s*(.*?)\s*$")
_NAME_FORM: Final = re.compile(r"^[a-z][a-z0-9_]*$")
_STAR: Final = re.compile(r"\bselect\s+(?:distinct\s+)?(?:\w+\.)?\*", re.IGNORECASE)


class QueryFileError(Exception):
    """A file of named queries breaks a rule; the message says which and where."""


class Queries(Mapping[str, str]):
    """The statements of one file, by name."""

    def __init__(self, source: str, statements: Mapping[str, str]) -> None:
        self._source = source
        self._statements = dict(statements)

    def __getitem__(self, name: str) -> str:
        """The statement called `name`; raises KeyError, naming the file."""
        try:
            return self._statements[name]
        except KeyError:
            raise KeyError(f"{self._source} has no query {name!r}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)


def load_queries(source: str | Path, name: str = "queries.sql") -> Queries:
    """Read the named queries of a package (`services.trade`) or of a file.

    Raises:
        QueryFileError: a name twice or malformed, a block without a line that says what it is for,
            an empty statement, a `SELECT *`, or text before the first block.
    """
    if isinstance(source, Path):
        return parse_queries(source.read_text(encoding="utf-8"), str(source))
    text = files(source).joinpath(name).read_text(encoding="utf-8")
    return parse_queries(text, f"{source}/{name}")


def parse_queries(text: str, source: str) -> Queries:
    """Read named queries out of `text`; `source` is for messages. Errors as `load_queries`."""
    statements: dict[str, str] = {}
    name: str | None = None
    begun_at = 0
    block: list[str] = []

    def finish() -> None:
        if name is not None:
            statements[name] = _read_block(name, block, f"{source}:{begun_at}")

    for number, line in enumerate(text.splitlines(), start=1):
        match = _NAME.match(line)
        if match is None:
            if name is None and line.strip() and not line.startswith("--"):
                raise QueryFileError(f"{source}:{number}: a statement without `-- name:`")
            block.append(line)
            continue
        finish()
        name, begun_at, block = match[1], number, []
        if not _NAME_FORM.match(name):
            raise QueryFileError(f"{source}:{number}: {name!r} is no name of a query")
        if name in statements:
            raise QueryFileError(f"{source}:{number}: there are two queries {name!r}")
    finish()
    return Queries(source, statements)


def _read_block(name: str, lines: list[str], place: str) -> str:
    start = 0
    purpose = ""
    while start < len(lines) and (lines[start].startswith("--") or not lines[start].strip()):
        purpose += lines[start].lstrip("- ").strip()
        start += 1
    if not purpose:
        raise QueryFileError(f"{place}: {name} lacks the line that says what it is for")
    statement = "\n".join(lines[start:]).strip().removesuffix(";").strip()
    if not statement:
        raise QueryFileError(f"{place}: {name} is empty")
    if _STAR.search(statement):
        raise QueryFileError(f"{place}: {name} reads `*`: name the columns")
    return statement
