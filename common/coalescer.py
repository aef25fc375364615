"""Single callers meet here and travel in one batch: while one is under way the next one gathers.

No timers, so that a lonely call pays nothing; no wait for a batch to fill, because at load it fills
while the one before is written. The coalescer knows nothing of what it carries: an item is whatever
must not be torn apart, and its answer comes after the flush that carried it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from common.backoff import Backoff
from common.db.failures import Failure
from common.errors import (
    InternalError,
    Outcome,
    OverloadedError,
    PaymeshError,
    Retry,
    UnavailableError,
)

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


_BACKOFF: Final = Backoff(first_seconds=0.005, longest_seconds=1.0, spread=0.5)
# Items that were given up while they waited are swept out of the queue beyond this.
_FORGOTTEN_MAX: Final = 1024


@dataclass(frozen=True)
class CoalescerLimits:
    """The bounds of a coalescer, each of which has a reason."""

    batch_weight_max: int = 2048
    """Most weight of one flush: larger ones gain nothing and let the next wait longer."""
    queue_weight_max: int = 32_768
    """Most weight that waits; beyond it callers are refused, not kept until their deadlines."""
    tries_max: int = 12
    """How often a batch is flushed before its callers are told to come back: with the pauses some
    five seconds, in which a server restarts."""
    backoff: Backoff = _BACKOFF
    """Pauses between tries, only after a failure. They are spread, because two lanes that met in a
    deadlock should not meet again."""


class _Ticket(Generic[Item, Answer]):
    """One item in the queue, and where its answer goes."""

    __slots__ = ("future", "is_taken", "item", "weight")

    def __init__(self, item: Item, weight: int, future: asyncio.Future[Any]) -> None:
        self.item = item
        self.weight = weight
        self.future = future
        self.is_taken = False
        """Set when a flush takes it: from then on it cannot be cancelled, only forgotten."""

    def answer(self, answer: Answer) -> None:
        """Answer, unless nobody waits any more."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, make_error: Callable[[], PaymeshError]) -> None:
        """Answer with an error, unless there is an answer or nobody waits any more."""
        if not self.future.done():
            self.future.set_exception(make_error())
            # An answer that nobody waits for any more is no warning of the loop.
            self.future.exception()


class _Group(Generic[Answer]):
    """The answers to items that one caller handed in: one future for all of them."""

    __slots__ = ("answers", "future", "open")

    def __init__(self, size: int, future: asyncio.Future[None]) -> None:
        self.answers: list[Answer | PaymeshError | None] = [None] * size
        self.open = size
        self.future = future


class _GroupTicket(_Ticket[Item, Answer]):
    """One of many items of a caller."""

    __slots__ = ("group", "is_open", "place")

    def __init__(self, item: Item, weight: int, group: _Group[Answer], place: int) -> None:
        # In its own lines, not by the class above: a call of thousands makes thousands of these.
        self.item = item
        self.weight = weight
        self.future = group.future
        self.is_taken = False
        self.group = group
        self.place = place
        self.is_open = True

    def answer(self, answer: Answer) -> None:
        self._settle(answer)

    def fail(self, make_error: Callable[[], PaymeshError]) -> None:
        if self.is_open:
            self._settle(make_error())

    def _settle(self, answer: Answer | PaymeshError) -> None:
        if not self.is_open:
            return
        self.is_open = False
        group = self.group
        group.answers[self.place] = answer
        group.open -= 1
        if not group.open and not group.future.done():
            group.future.set_result(None)


class Coalescer(Generic[Item, Answer]):
    """One lane: items in, batches through `flush`, answers out.

    `flush` is given items and returns their answers in the same order; it raises only when the
    whole batch came to nothing or to nobody knows what. `classify` says which (None: our own
    fault, taken as SPLIT). `read_back` answers the items whose effect is there, with None for the
    others, which are then flushed again: so both must be safe to repeat. `weigh` gives an item's
    share of the bounds.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        *,
        classify: Callable[[Exception], Failure | None],
        read_back: Callable[[Sequence[Item]], Awaitable[Sequence[Answer | None]]],
        weigh: Callable[[Item], int] = lambda _: 1,
        limits: CoalescerLimits | None = None,
        name: str = "lane",
    ) -> None:
        self._flush = flush
        self._classify = classify
        self._read_back = read_back
        self._weigh = weigh
        self._limits = limits or CoalescerLimits()
        self._name = name
        self._queue: deque[_Ticket[Item, Answer]] = deque()
        self._waiting_weight = 0
        self._forgotten = 0
        self._runner: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def waiting_weight(self) -> int:
        """Weight of what waits for its flush."""
        return self._waiting_weight

    async def submit(self, item: Item) -> Answer:
        """Hand in one item and wait for its answer.

        Cancelled while it waits, the item is taken out and nothing was done. Cancelled later, the
        flush goes on and its answer is dropped.

        Raises:
            OverloadedError: too much is waiting, or the item is heavier than any flush.
            UnavailableError: closing; or, with the outcome it knows, flushing failed too often.
            InternalError: the item alone makes the flush fail; nothing of it was done.
        """
        ticket = self._enqueue(item)
        try:
            answer: Answer = await ticket.future
        except asyncio.CancelledError:
            self._forget(ticket)
            raise
        return answer

    async def submit_all(self, items: Sequence[Item]) -> list[Answer | PaymeshError]:
        """Hand in many items, each of which may travel in another flush; failures are per item.

        Raises:
            OverloadedError: not all of them find room; none was taken.
        """
        weights = [self._weigh(item) for item in items]
        if not items:
            return []
        self._check_room(sum(weights))
        self._check_weight(max(weights))
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        group: _Group[Answer] = _Group(len(items), future)
        tickets = [
            _GroupTicket(item, weight, group, place)
            for place, (item, weight) in enumerate(zip(items, weights, strict=True))
        ]
        self._queue.extend(tickets)
        self._waiting_weight += sum(weights)
        self._begin()
        try:
            await future
        except asyncio.CancelledError:
            for ticket in tickets:
                self._forget(ticket)
            raise
        return cast("list[Answer | PaymeshError]", group.answers)

    async def drain(self) -> None:
        """Take nothing new, and wait until everything taken is answered."""
        self._is_closing = True
        runner = self._runner
        if runner is not None:
            await asyncio.shield(asyncio.wait([runner]))

    # Queue.

    def _check_room(self, weight: int) -> None:
        if self._is_closing:
            raise _unavailable(self._name, Outcome.NOT_EXECUTED)()
        if self._waiting_weight + weight > self._limits.queue_weight_max:
            raise OverloadedError(limit=self._limits.queue_weight_max)

    def _check_weight(self, weight: int) -> None:
        if weight > self._limits.batch_weight_max:
            raise OverloadedError(limit=self._limits.batch_weight_max, retry=Retry.NEVER)

    def _enqueue(self, item: Item) -> _Ticket[Item, Answer]:
        weight = self._weigh(item)
        self._check_room(weight)
        self._check_weight(weight)
        ticket: _Ticket[Item, Answer] = _Ticket(
            item, weight, asyncio.get_running_loop().create_future()
        )
        self._queue.append(ticket)
        self._waiting_weight += weight
        self._begin()
        return ticket

    def _begin(self) -> None:
        if self._runner is None:
            loop = asyncio.get_running_loop()
            self._runner = loop.create_task(self._run(), name=f"{self._name} coalescer")

    def _forget(self, ticket: _Ticket[Item, Answer]) -> None:
        ticket.future.cancel()
        if ticket.is_taken:
            return
        ticket.is_taken = True
        self._waiting_weight -= ticket.weight
        self._forgotten += 1
        # While a flush hangs nothing leaves the queue, and callers come and give up all the time.
        if self._forgotten > _FORGOTTEN_MAX and self._forgotten > len(self._queue) // 2:
            self._queue = deque(one for one in self._queue if not one.is_taken)
            self._forgotten = 0

    def _gather(self) -> list[_Ticket[Item, Answer]]:
        """Take the next batch: as many as fit, in the order of arrival."""
        batch: list[_Ticket[Item, Answer]] = []
        room = self._limits.batch_weight_max
        while self._queue:
            ticket = self._queue[0]
            if ticket.is_taken:  # cancelled while it waited
                self._queue.popleft()
                self._forgotten -= 1
                continue
            if ticket.weight > room:
                break
            self._queue.popleft()
            ticket.is_taken = True
            room -= ticket.weight
            self._waiting_weight -= ticket.weight
            batch.append(ticket)
        return batch

    # Flushing.

    async def _run(self) -> None:
        try:
            while batch := self._gather():
                try:
                    await self._carry(batch)
                except Exception as error:  # noqa: BLE001 - nobody may wait for ever
                    _log.exception("%s: a batch of %d failed", self._name, len(batch))
                    self._fail(batch, _internal(Outcome.UNKNOWN, error))
                except asyncio.CancelledError:  # the loop is being shut down
                    self._fail(batch, _unavailable(self._name, Outcome.UNKNOWN))
                    raise
        finally:
            self._runner = None
            self._fail(self._queue, _unavailable(self._name, Outcome.NOT_EXECUTED))

    async def _carry(self, batch: list[_Ticket[Item, Answer]]) -> None:
        """Flush a batch until each of its items has its answer or its error."""
        is_unknown = False
        for tries in range(self._limits.tries_max):
            if tries:
                await asyncio.sleep(self._limits.backoff.pause(tries))
            if is_unknown:
                remaining = await self._ask_back(batch)
                if remaining is None:
                    continue
                is_unknown, batch = False, remaining
            if not batch:
                return
            try:
                answers = await self._flush([ticket.item for ticket in batch])
            except Exception as error:  # noqa: BLE001 - sorted by `classify`
                failure = self._classify(error) or Failure.SPLIT
                if failure is Failure.SPLIT:
                    await self._split(batch, error)
                    return
                _log.warning("%s: %s after %r", self._name, failure.value, error)
                is_unknown = failure is Failure.READ_BACK
                continue
            if len(answers) != len(batch):
                raise RuntimeError(f"{len(answers)} answers for {len(batch)} items")
            for ticket, answer in zip(batch, answers, strict=True):
                ticket.answer(answer)
            return
        outcome = Outcome.UNKNOWN if is_unknown else Outcome.NOT_EXECUTED
        self._fail(batch, _unavailable(self._name, outcome))

    async def _ask_back(
        self, batch: list[_Ticket[Item, Answer]]
    ) -> list[_Ticket[Item, Answer]] | None:
        """Answer what was done after all; return the rest, or None when nobody can be asked."""
        try:
            answers = await self._read_back([ticket.item for ticket in batch])
        except Exception as error:  # noqa: BLE001 - the server is still away: asked again
            _log.warning("%s: read-back failed: %r", self._name, error)
            return None
        remaining = []
        for ticket, answer in zip(batch, answers, strict=True):
            if answer is None:
                remaining.append(ticket)
            else:
                ticket.answer(answer)
        return remaining

    async def _split(self, batch: list[_Ticket[Item, Answer]], error: Exception) -> None:
        """Find the item to blame by halves; its neighbours are flushed without it."""
        if len(batch) == 1:
            _log.error("%s: set aside %r", self._name, batch[0].item, exc_info=error)
            self._fail(batch, _internal(Outcome.NOT_EXECUTED, error))
            return
        middle = len(batch) // 2
        await self._carry(batch[:middle])
        await self._carry(batch[middle:])

    def _fail(
        self, batch: Iterable[_Ticket[Item, Answer]], make_error: Callable[[], PaymeshError]
    ) -> None:
        for ticket in batch:
            ticket.fail(make_error)


def _internal(outcome: Outcome, cause: Exception) -> Callable[[], PaymeshError]:
    def make() -> PaymeshError:
        retry = Retry.NEVER if outcome == Outcome.NOT_EXECUTED else Retry.SAME_ID
        error = InternalError(outcome=outcome, retry=retry)
        error.__cause__ = cause
        return error

    return make


def _unavailable(name: str, outcome: Outcome) -> Callable[[], PaymeshError]:
    return lambda: UnavailableError(target=name, outcome=outcome, retry=Retry.SAME_ID)
