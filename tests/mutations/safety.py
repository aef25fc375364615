"""One safety: what it protects, how it would be removed, and which tests must notice."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


class MutationError(Exception):
    """A mutation does not fit the code any more; the message says which and how."""


@dataclass(frozen=True)
class Edit:
    """A change of one file."""

    file: str
    """Where it is, from the root of the repository."""
    before: str
    """The text that is replaced; found in the file exactly once."""
    after: str

    def apply(self, text: str, name: str) -> str:
        """Return the file's text after it; `name` is told in errors.

        Raises:
            MutationError: the text is not there, or there more than once.
        """
        count = text.count(self.before)
        if count != 1:
            raise MutationError(f"{name}: {self.file} has its text {count} times, not once")
        return text.replace(self.before, self.after)


@dataclass(frozen=True)
class Safety:
    """A safety of the code, as data."""

    name: str
    """Short, for the command line: `relay-confirm-before-mark`."""
    protects: str
    """What would happen without it, said as what does not happen; one sentence."""
    file: str
    """Where it is, from the root of the repository."""
    before: str
    """The text that makes it; found in the file exactly once."""
    after: str
    """The text with which it is gone, and nothing else."""
    tests: tuple[str, ...]
    """Node ids of tests; every one of them must fail without it."""
    also: tuple[Edit, ...] = ()
    """Where two pieces of code keep the same rule, the other one goes too: each would hide that
    the first is missing."""

    @property
    def edits(self) -> tuple[Edit, ...]:
        """All that is changed, in this order."""
        return (Edit(self.file, self.before, self.after), *self.also)

    def check(self, root: Path = ROOT) -> None:
        """Raise MutationError when the mutation, or a test that it names, is not there."""
        texts: dict[str, str] = {}
        for edit in self.edits:
            path = root / edit.file
            if not path.is_file():
                raise MutationError(f"{self.name}: there is no {edit.file}")
            texts[edit.file] = edit.apply(
                texts.get(edit.file) or path.read_text("utf-8"), self.name
            )
        for file, text in texts.items():
            if file.endswith(".py"):
                try:
                    ast.parse(text)
                except SyntaxError as error:
                    problem = f"{self.name}: what is left of {file} is no Python: {error}"
                    raise MutationError(problem) from error
        if not self.tests:
            raise MutationError(f"{self.name}: no test is named")
        for node in self.tests:
            file, _, function = node.partition("::")
            if function.partition("[")[0] not in _functions(root / file):
                raise MutationError(f"{self.name}: there is no test {node}")


def _functions(path: Path) -> set[str]:
    """The names of the functions of a test file; empty when there is no such file."""
    if not path.is_file():
        return set()
    return {
        node.name
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
