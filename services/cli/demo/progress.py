"""Progress of long work: a bar for eyes, a line now and then where there is no terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

# In a log, a line every few seconds says enough.
_LINE_EVERY_SECONDS: Final = 5.0


class Meter:
    """One piece of work that counts up to a total."""

    def __init__(self, console: Console, progress: Progress, task: TaskID, name: str) -> None:
        self._console = console
        self._progress = progress
        self._task = task
        self._name = name
        self._said_at = monotonic()
        self._note = ""

    def note(self, words: str) -> None:
        """Name what happened last, beside the count."""
        self._note = words
        self._progress.update(self._task, description=f"{self._name} ({words})")

    def advance(self, steps: int = 1) -> None:
        """Count some steps as done."""
        self._progress.advance(self._task, steps)
        if not self._console.is_terminal and monotonic() - self._said_at > _LINE_EVERY_SECONDS:
            self._said_at = monotonic()
            task = self._progress.tasks[self._task]
            last = f" (last fault: {self._note})" if self._note else ""
            self._console.print(
                f"  {self._name}: {task.completed:,.0f} of {task.total:,.0f}{last}", highlight=False
            )


@contextmanager
def meter(console: Console, name: str, total: int) -> Iterator[Meter]:
    """Show the progress of `total` steps while the block runs."""
    progress = Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with progress:
        yield Meter(console, progress, progress.add_task(name, total=total), name)
