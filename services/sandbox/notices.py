"""Callbacks: written with what they tell of, then repeated until they are acknowledged.

The rows on disk are the truth; the heap in memory is only when to look at which. After a restart
the heap is filled from the rows, so nothing that is owed is forgotten.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

import aiohttp

from common.clock import Clock
from services.sandbox.store import Store

IN_FLIGHT_MAX: Final = 64
"""Callbacks under way at once; enough for several hundred a second at 100 ms each."""

ANSWER_BYTES_MAX: Final = 4096
"""Longest acknowledgement that is read."""

_log: Final = logging.getLogger(__name__)

Sign = Callable[[str, Mapping[str, str], bool], bytes]
"""(merchant number, fields, wrongly) → the signed body to send. Signed wrongly, the signature has
the right form but is over something else."""

Acknowledged = Callable[[int, bytes], bool]
"""(HTTP status, body) → whether the party takes this for an acknowledgement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One callback that is owed to a merchant."""

    notice_id: int
    party: str
    merchant_number: str
    url: str
    fields: Mapping[str, str]
    attempts: int
    next_at: float
    signed_wrongly: bool = False
    """Tried once: nobody acknowledges it."""
    follows: int | None = None
    """The notice that is tried before this one."""


_COLUMNS: Final = (
    "notice_id, party, merchant_number, url, fields, attempts, next_at, signed_wrongly, follows"
)


def write_notice(
    db: sqlite3.Connection,
    *,
    party: str,
    merchant_number: str,
    url: str,
    fields: Mapping[str, str],
    next_at: float,
    signed_wrongly: bool = False,
    follows: int | None = None,
) -> Notice:
    """Write that a callback is owed, in the transaction of what it tells."""
    text = json.dumps(fields, ensure_ascii=False)
    cursor = db.execute(
        "INSERT INTO notices (party, merchant_number, url, fields, next_at, signed_wrongly,"
        " follows) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (party, merchant_number, url, text, next_at, signed_wrongly, follows),
    )
    return Notice(
        notice_id=cursor.lastrowid or 0,
        party=party,
        merchant_number=merchant_number,
        url=url,
        fields=fields,
        attempts=0,
        next_at=next_at,
        signed_wrongly=signed_wrongly,
        follows=follows,
    )


def list_owed(db: sqlite3.Connection) -> list[Notice]:
    """Return every callback that was not acknowledged and waits for no other."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM notices AS owed"  # noqa: S608 - names of columns
        " WHERE acknowledged_at IS NULL AND NOT EXISTS ("
        "SELECT 1 FROM notices AS former WHERE former.notice_id = owed.follows"
        " AND former.attempts = 0) ORDER BY notice_id"
    )
    return [_notice(row) for row in rows]


def _list_followers(db: sqlite3.Connection, notice_id: int) -> list[Notice]:
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM notices"  # noqa: S608 - names of columns
        " WHERE follows = ? AND acknowledged_at IS NULL ORDER BY notice_id",
        (notice_id,),
    )
    return [_notice(row) for row in rows]


def _notice(row: sqlite3.Row) -> Notice:
    return Notice(
        notice_id=row["notice_id"],
        party=row["party"],
        merchant_number=row["merchant_number"],
        url=row["url"],
        fields=json.loads(row["fields"]),
        attempts=row["attempts"],
        next_at=row["next_at"],
        signed_wrongly=bool(row["signed_wrongly"]),
        follows=row["follows"],
    )


def _mark_tried(
    db: sqlite3.Connection, notice: Notice, *, acknowledged_at: float | None, next_at: float
) -> list[Notice]:
    """Note how an attempt ended; returns the notices that waited for it."""
    db.execute(
        "UPDATE notices SET acknowledged_at = ?, next_at = ?, attempts = attempts + 1"
        " WHERE notice_id = ?",
        (acknowledged_at, next_at, notice.notice_id),
    )
    return _list_followers(db, notice.notice_id) if notice.attempts == 0 else []


@dataclass(frozen=True, slots=True)
class Manners:
    """How one party calls back."""

    sign: Sign
    acknowledged: Acknowledged


@dataclass(order=True, slots=True)
class _Due:
    at: float
    notice_id: int
    notice: Notice = field(compare=False)


class Courier:
    """Delivers what is owed. `run` until cancelled; `carry` hands it new notices."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        manners: Mapping[str, Manners],
        *,
        intervals_seconds: Sequence[float],
        timeout_seconds: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._manners = manners
        self._intervals_seconds = tuple(intervals_seconds)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._due: list[_Due] = []
        self._held: set[int] = set()
        self._awaited: dict[int, asyncio.Event] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)

    def carry(self, notice: Notice) -> None:
        """Take over a notice whose row is committed; one that is held already stays as it is."""
        if notice.notice_id not in self._held:
            self._held.add(notice.notice_id)
            self._push(notice)

    async def attempted(self, notice: Notice, timeout_seconds: float) -> None:
        """Wait until a notice that was just taken over was tried once, or the time is up."""
        tried = self._awaited.setdefault(notice.notice_id, asyncio.Event())
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await tried.wait()
        self._awaited.pop(notice.notice_id, None)

    def _push(self, notice: Notice) -> None:
        heapq.heappush(self._due, _Due(notice.next_at, notice.notice_id, notice))
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever, beginning with what the last run still owed."""
        self._due.clear()
        self._held.clear()
        for notice in await self._store.run(list_owed):
            self.carry(notice)
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT_MAX, keepalive_timeout=15.0)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=self._timeout) as session,
            asyncio.TaskGroup() as deliveries,
        ):
            while True:
                notice = await self._next()
                await self._slots.acquire()
                deliveries.create_task(self._deliver(session, notice))

    async def _next(self) -> Notice:
        while True:
            now = self._clock.now().timestamp()
            if self._due and self._due[0].at <= now:
                return heapq.heappop(self._due).notice
            self._wake.clear()
            pause = self._due[0].at - now if self._due else None
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def _deliver(self, session: aiohttp.ClientSession, notice: Notice) -> None:
        try:
            done = await self._attempt(session, notice) or notice.signed_wrongly
            now = self._clock.now().timestamp()
            step = min(notice.attempts, len(self._intervals_seconds) - 1)
            next_at = notice.next_at if done else now + self._intervals_seconds[step]
            followers = await self._store.run(
                lambda db: _mark_tried(
                    db, notice, acknowledged_at=now if done else None, next_at=next_at
                )
            )
            if done:
                self._held.discard(notice.notice_id)
            else:
                self._push(replace(notice, attempts=notice.attempts + 1, next_at=next_at))
            for follower in followers:
                self.carry(follower)
        except sqlite3.Error:
            # The row still says that it is owed; the next start of the sandbox finds it.
            _log.exception("the sandbox could not note the fate of a callback")
        finally:
            self._slots.release()
            if notice.notice_id in self._awaited:
                self._awaited[notice.notice_id].set()

    async def _attempt(self, session: aiohttp.ClientSession, notice: Notice) -> bool:
        manners = self._manners[notice.party]
        try:
            async with session.post(
                notice.url,
                data=manners.sign(notice.merchant_number, notice.fields, notice.signed_wrongly),
                headers={"content-type": "application/x-www-form-urlencoded;charset=utf-8"},
                allow_redirects=False,
            ) as response:
                answer = await response.content.read(ANSWER_BYTES_MAX)
                return manners.acknowledged(response.status, answer)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.debug("callback %s not delivered: %s", notice.notice_id, type(error).__name__)
            return False
