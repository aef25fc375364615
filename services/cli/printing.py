"""How commands print: what they say is data, and never cut or broken at the terminal's edge.

An amount whose last digits are cut is another amount, and a program that reads a pipe wants one row
a line. Lines that are longer than the terminal are its own to fold.
"""

from __future__ import annotations

from typing import IO, Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

# No cell is so wide: the longest text is a summary of 200 characters.
_ANY: Final = 10_000


def open_console(file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return a console that prints what it is given, to the program's output by default.

    Summaries and reasons are texts of others: no brackets or colons in them are ours.
    """
    return Console(
        file=file, width=width, soft_wrap=True, markup=False, emoji=False, highlight=False
    )


def print_table(table: Table, console: Console) -> None:
    """Print a table as wide as what is in it, however wide the terminal is."""
    table.width = Measurement.get(console, console.options.update(max_width=_ANY), table).maximum
    console.print(table, soft_wrap=True)
