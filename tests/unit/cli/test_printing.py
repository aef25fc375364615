"""What commands print is whole: on a narrow terminal, in a pipe, with anybody's texts in it."""

from __future__ import annotations

import fcntl
import io
import os
import struct
import subprocess
import sys
import termios

from rich.console import Console
from rich.table import Table

from services.cli.audit import Findings, show
from services.cli.printing import open_console, print_table

_LARGEST = "9,999,999,999,999.99 USD"
_FINDING = "transfer tfr_01m8 moved 60 credit, " * 4
_PROGRAM = f"""
from rich.table import Table
from services.cli.printing import open_console, print_table
table = Table("subject", "name", "opening", "closing", box=None, pad_edge=False)
table.add_row("1122.01", "Receivable from channels", "{_LARGEST}", "{_LARGEST}")
console = open_console()
print_table(table, console)
console.print("off: {_FINDING}")
"""
_ENVIRONMENT = {name: v for name, v in os.environ.items() if name not in ("COLUMNS", "LINES")}
_COMMAND = [sys.executable, "-c", _PROGRAM]


def _check(printed: str) -> None:
    lines = [line.rstrip() for line in printed.splitlines()]
    [row] = [line for line in lines if line.startswith("1122.01")]
    assert row.count(_LARGEST) == 2
    assert f"off: {_FINDING}".rstrip() in lines


def test_printing_on_a_narrow_terminal_cuts_nothing() -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 30, 0, 0))
    try:
        subprocess.run(
            _COMMAND, stdin=theirs, stdout=theirs, env=_ENVIRONMENT, timeout=60, check=True
        )
        printed = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    _check(printed)


def test_printing_into_a_pipe_cuts_nothing() -> None:
    done = subprocess.run(
        _COMMAND, stdout=subprocess.PIPE, env=_ENVIRONMENT, timeout=60, check=True, text=True
    )
    _check(done.stdout)


def test_printing_leaves_the_texts_of_others_as_they_are() -> None:
    """A summary may hold brackets and colons, which would be colours and pictures elsewhere."""
    summary = "back [/b] [red]to[/red] :smile: 红包"
    table = Table("summary", "amount", box=None, pad_edge=False)
    table.add_row(summary, _LARGEST)
    out = io.StringIO()
    print_table(table, open_console(out, width=20))
    assert f"{summary}  {_LARGEST}" in out.getvalue()


def test_an_audit_prints_each_finding_on_one_line_and_what_was_compared() -> None:
    out = io.StringIO()
    finding = f"account acc_01m8 [x] {_FINDING}"
    assert show(Findings(off=[finding]), Console(file=out, width=40)) == 1
    lines = out.getvalue().splitlines()
    assert f"  off: {finding}" in lines
    assert "entries without a transfer" in lines[1]
