"""Scenario files: a folder for each subject, a file for each thing that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass
class Line:
    """One statement."""

    number: int
    words: list[str]
    options: dict[str, str]
    expected: list[str] = field(default_factory=list)


@dataclass
class Scenario:
    """One file."""

    name: str
    """Folder and file, without the suffix."""
    lines: list[Line]


def load_scenarios() -> list[Scenario]:
    """Read all scenarios."""
    return [
        Scenario(
            path.relative_to(FOLDER).with_suffix("").as_posix(),
            list(parse(path.read_text(encoding="utf-8"))),
        )
        for path in sorted(FOLDER.rglob("*.txt"))
    ]


def parse(text: str) -> Iterator[Line]:
    """Read the statements of one file."""
    for number, raw in enumerate(text.splitlines(), start=1):
        statement, _, expected = raw.partition("#")[0].partition("->")
        words, options = [], {}
        for word in statement.split():
            name, equals, value = word.partition("=")
            if equals and not name[0].isdigit():
                options[name] = value
            else:
                words.append(word)
        if "times" in options:
            yield Line(number, ["batch"], {})
            for place in range(int(options["times"])):
                yield Line(number, [f"{words[0]}{place}", *words[1:]], {}, expected.split())
            yield Line(number, ["end"], {})
        elif words:
            yield Line(number, words, options, expected.split())
