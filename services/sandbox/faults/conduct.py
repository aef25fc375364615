"""How the parties act on requests: well, or as the plan wants.

What goes wrong is drawn in the same transaction as the effect is written, so that a sandbox that is
killed in between has done, counted and forgotten neither or both. Only then the line is broken, the
answer delayed, or a callback sent ahead of it.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from common.clock import Clock
from services.sandbox.faults.book import Book, count_request, read_hits
from services.sandbox.faults.fate import Fate
from services.sandbox.faults.plan import Asked, FaultKind, FaultPlan, FaultRule, check_rules
from services.sandbox.notices import Courier
from services.sandbox.store import Store

T = TypeVar("T")

EARLY_WAIT_SECONDS_MAX: Final = 2.0
"""How long an answer waits for its callback: longer than a callback takes, shorter than callers
wait for answers, so that a callback nobody takes does not become a lost answer."""

Identify = Callable[[sqlite3.Connection], Asked | None]
"""Says what a request is, for the rules; None for what no rule is about."""


class LineBrokenError(Exception):
    """The connection is to be closed without an answer."""


@dataclass(slots=True)
class _Acted(Generic[T]):
    """How a piece of work ended: with a value, a refusal, or not begun."""

    fate: Fate
    value: T | None = None
    refusal: Exception | None = None
    begun: bool = True
    answer_lost: bool = False
    slow: FaultRule | None = None


class Conduct:
    """Lets the parties act, under the plan in force."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._book = Book()
        self._courier: Courier | None = None

    def deliver_by(self, courier: Courier) -> None:
        """Say who carries the callbacks."""
        self._courier = courier

    async def load(self) -> None:
        """Read what was in force when the sandbox ended; to be called before anybody is served."""
        await self._store.run(lambda db: (self._book.plan(db), self._book.outages(db)))

    async def put_plan(self, plan: FaultPlan) -> None:
        """Put a plan in force. Raises FieldInvalidError."""
        check_rules(plan.rules)
        try:
            await self._store.run(lambda db: self._book.put(db, plan))
        finally:
            self._book.forget()
            await self.load()

    async def read_plan(self) -> tuple[FaultPlan, list[int]]:
        """Return the plan in force and the hits of each of its rules."""
        return await self._store.run(lambda db: (self._book.plan(db), read_hits(db)))

    def check_line(self, party: str) -> None:
        """Raise LineBrokenError while a party is out."""
        if self._book.is_out(party, self._clock.now().timestamp()):
            raise LineBrokenError

    async def answer(self, identify: Identify, work: Callable[[Fate], T]) -> T:
        """Carry out a request that came over a party's line, and return what `work` returned.

        Raises LineBrokenError when the answer is lost, and what `work` raised; then nothing that
        `work` wrote stays.
        """
        acted = await self._store.run(lambda db: self._act(db, identify, work))
        if not acted.begun:
            raise LineBrokenError
        await self._call_back(acted.fate)
        if acted.slow is not None:
            await asyncio.sleep(acted.slow.delay_seconds)
        if acted.answer_lost:
            raise LineBrokenError
        if acted.refusal is not None:
            raise acted.refusal
        return acted.value  # type: ignore[return-value]  # set when nothing was refused

    async def play(self, identify: Identify, work: Callable[[Fate], T]) -> T:
        """Carry out what a payer does. No line is involved; effects and callbacks may go wrong."""

        def act(db: sqlite3.Connection) -> tuple[T, Fate]:
            plan = self._book.plan(db)
            fate = Fate(db, plan, identify(db) if plan.rules else None)
            return work(fate), fate

        value, fate = await self._store.run(act)
        await self._call_back(fate)
        return value

    def _act(
        self, db: sqlite3.Connection, identify: Identify, work: Callable[[Fate], T]
    ) -> _Acted[T]:
        plan = self._book.plan(db)
        asked = identify(db) if plan.rules else None
        if asked is None:
            fate = Fate(db, plan)
            return _Acted(fate, work(fate))
        ordinal = 0
        if any(rule.concerns(asked) for rule in plan.rules):
            ordinal = count_request(db, asked)
        fate = Fate(db, plan, asked, ordinal)
        outage = fate.draw(FaultKind.OUTAGE)
        if outage is not None:
            ends_at = self._clock.now().timestamp() + outage.delay_seconds
            self._book.begin_outage(db, asked.party, ends_at)
        if outage is not None or fate.draw(FaultKind.ANSWER_LOST_BEFORE):
            return _Acted(fate, begun=False)
        acted = _Acted[T](
            fate,
            slow=fate.draw(FaultKind.SLOW),
            answer_lost=fate.draw(FaultKind.ANSWER_LOST_AFTER) is not None,
        )
        # A refusal undoes what the request wrote, but not that it was counted.
        db.execute("SAVEPOINT effect")
        try:
            acted.value = work(fate)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 - raised again after the commit
            db.execute("ROLLBACK TO effect")
            acted.refusal = error
            fate.notices.clear()
            fate.awaited = None
        db.execute("RELEASE effect")
        return acted

    async def _call_back(self, fate: Fate) -> None:
        if self._courier is None:
            return
        for notice in fate.notices:
            if notice.follows is None:
                self._courier.carry(notice)
        if fate.awaited is not None:
            await self._courier.attempted(fate.awaited, EARLY_WAIT_SECONDS_MAX)
