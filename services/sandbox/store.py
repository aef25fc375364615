"""The parties' memory: one SQLite file, written in batches, on disk before anybody is answered.

Work is a function of the connection. Whatever is waiting when the disk is free runs as one
transaction (each piece in a savepoint of its own, so that a refused one harms no other), is
committed once, and only then answered. The statements run on the event loop, where they cost
microseconds; the commit, which waits for the disk, runs in a thread. (All of it in a thread would
fight the loop for the interpreter at each statement.)
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

BATCH_MAX: Final = 256
"""Pieces of work per commit; more would keep the loop busy for more than some 20 ms."""

_SCHEMA: Final = Path(__file__).with_name("schema.sql")
_UPGRADES: Final = (Path(__file__).with_name("schema_faults.sql"),)
"""What came later, in order; the file's `user_version` says how many it has."""


@dataclass(slots=True)
class _Waiting:
    work: Work[Any]
    answer: asyncio.Future[Any]


class Store:
    """The open file. One process has it open at a time."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
            f" BEGIN; {_SCHEMA.read_text()} COMMIT;"
        )
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        for number, upgrade in enumerate(_UPGRADES[version:], version + 1):
            self._connection.executescript(
                f"BEGIN; {upgrade.read_text()} PRAGMA user_version = {number}; COMMIT;"
            )
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="sandbox-commit")
        self._waiting: deque[_Waiting] = deque()
        self._lane: asyncio.Task[None] | None = None

    async def run(self, work: Work[T]) -> T:
        """Run `work` in a transaction; returns or raises what it did, after the commit."""
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(work, answer))
        if self._lane is None or self._lane.done():
            self._lane = asyncio.create_task(self._drain())
        return await answer

    async def close(self) -> None:
        """Finish what is waiting and close the file."""
        while self._lane is not None and not self._lane.done():
            await asyncio.wait([self._lane])
        self._committer.shutdown()
        self._connection.close()

    async def _drain(self) -> None:
        while self._waiting:
            size = min(len(self._waiting), BATCH_MAX)
            await self._flush([self._waiting.popleft() for _ in range(size)])

    async def _flush(self, batch: list[_Waiting]) -> None:
        before = self._connection.total_changes
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            answers = [(one, *self._attempt(one.work)) for one in batch]
            if self._connection.total_changes == before:
                self._connection.commit()
            else:
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._committer, self._connection.commit)
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._connection.rollback()
            answers = [(one, None, error) for one in batch]
        for one, value, failure in answers:
            if one.answer.done():
                continue
            if failure is None:
                one.answer.set_result(value)
            else:
                one.answer.set_exception(failure)

    def _attempt(self, work: Work[T]) -> tuple[T | None, Exception | None]:
        self._connection.execute("SAVEPOINT piece")
        try:
            value = work(self._connection)
        except Exception as error:  # noqa: BLE001 - handed to the one who asked
            self._connection.execute("ROLLBACK TO piece")
            self._connection.execute("RELEASE piece")
            return None, error
        self._connection.execute("RELEASE piece")
        return value, None
