"""Rows that are written behind the answers: nobody waits for them, so they are simply gathered."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from common.backoff import Backoff
from common.db.failures import is_about_values

_log = logging.getLogger(__name__)
_BATCH_MAX: Final = 500

Row = TypeVar("Row")


class WrittenBehind(Generic[Row]):
    """Rows that wait to be written.

    `write` must be safe to repeat: a batch whose outcome is unknown is written again. A row whose
    values are refused is dropped and told to `when_refused`, so that it holds up no other.
    `pause_seconds` is how long rows are gathered, so that few commits carry many of them; what
    waits when a process is killed is lost.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Row]], Awaitable[None]],
        *,
        waiting_max: int,
        pause_seconds: float = 0.0,
        name: str,
        when_refused: Callable[[Row], None] = lambda _: None,
    ) -> None:
        self._write = write
        self._waiting: deque[Row] = deque()
        self._waiting_max = waiting_max
        self._pause_seconds = pause_seconds
        self._name = name
        self._when_refused = when_refused
        self._wake = asyncio.Event()
        self._flushing = asyncio.Lock()

    def add(self, row: Row) -> bool:
        """Take down a row; False when too many wait: it is dropped."""
        if len(self._waiting) >= self._waiting_max:
            return False
        self._waiting.append(row)
        self._wake.set()
        return True

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        backoff = Backoff()
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._pause_seconds:
                await asyncio.sleep(self._pause_seconds)
            try:
                await self.flush()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the rows wait until the database is back
                failures += 1
                _log.warning("%s wait: %r", self._name, error)
                await asyncio.sleep(backoff.pause(failures))
                self._wake.set()

    async def flush(self) -> None:
        """Write everything that waits now."""
        async with self._flushing:
            while self._waiting:
                batch = list(itertools.islice(self._waiting, _BATCH_MAX))
                await self._write_all(batch)
                # Taken away only now: a batch that failed is written again, and a row that was
                # written after all is left alone.
                for _ in batch:
                    self._waiting.popleft()

    async def _write_all(self, batch: Sequence[Row]) -> None:
        """Write a batch; halves find the row to blame when its values are refused."""
        try:
            await self._write(batch)
        except Exception as error:
            if not is_about_values(error):
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write_all(batch[:middle])
                await self._write_all(batch[middle:])
                return
            # Not the row nor the server's words: they may quote what a caller wrote.
            _log.error("one of the %s can never be written: %s", self._name, type(error).__name__)
            self._when_refused(batch[0])
