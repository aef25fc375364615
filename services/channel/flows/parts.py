"""What every flow of the channel service stands on."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import SecretStr

from common.clock import Clock
from common.context import ActorType, CallContext, Principal
from common.ids import IdFactory
from services.channel.catalogue import Catalogue
from services.channel.domain import Charge, Owner, Refund
from services.channel.store.movements import ChannelStore
from services.channel.writer import ChannelWriter

Answer = TypeVar("Answer")


class Cards(Protocol):
    """Where card numbers come from."""

    async def reveal(self, card_id: str) -> SecretStr | None:
        """Return the number of a bound card; None when it is not bound any more."""
        ...


class Sending(Generic[Answer]):
    """Calls of channels that are under way in this process, by our reference.

    A call goes on when its caller has gone, because its outcome has to be stored all the same; a
    second caller with the same reference waits for the first one's answer.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[Answer]] = {}
        self._abandoned: set[str] = set()

    def is_abandoned(self, reference: str) -> bool:
        """Say whether the caller that wanted to know has gone."""
        return reference in self._abandoned

    def is_under_way(self, reference: str) -> bool:
        """Say whether a call under `reference` is under way in this process."""
        return reference in self._tasks

    async def send(self, reference: str, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Run `work` to its end and return what it answers."""
        task = asyncio.create_task(work, name=f"channel call {reference}")
        self._tasks[reference] = task
        task.add_done_callback(lambda _: self._forget(reference, task))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._abandoned.add(reference)
            raise

    async def join(self, reference: str) -> Answer | None:
        """Wait for the call under way under `reference`; None when there is none."""
        task = self._tasks.get(reference)
        return None if task is None else await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait until every call under way has ended."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    def _forget(self, reference: str, task: asyncio.Task[Answer]) -> None:
        self._abandoned.discard(reference)
        if self._tasks.get(reference) is task:
            del self._tasks[reference]
        if not task.cancelled():
            task.exception()  # known to the row; no warning when nobody waits any more


@dataclass(frozen=True)
class Parts:
    """Given by wiring."""

    store: ChannelStore
    writer: ChannelWriter
    catalogue: Catalogue
    cards: Cards
    clock: Clock
    ids: IdFactory
    callback_question_seconds: float = 2.0
    """Longest that a callback waits for the answer to a question about it."""
    charging: Sending[Charge] = field(default_factory=Sending)
    refunding: Sending[Refund] = field(default_factory=Sending)

    async def drain(self) -> None:
        """Wait for calls under way, then for everything handed in to be written."""
        await self.charging.drain()
        await self.refunding.drain()
        await self.writer.drain()


def owner_of(call: CallContext) -> Owner:
    """Return the principal's columns of a new row."""
    principal = call.principal
    return Owner(
        tenant_id=principal.tenant_id,
        mode=principal.mode,
        merchant_id=principal.merchant_id,
        actor=principal.actor,
        biz_trace_id=call.biz_trace_id,
    )


def may_see(principal: Principal, owner: Owner) -> bool:
    """Say whether a principal may know of a row.

    Services and operators see all of their world; whoever acts for a merchant sees the merchant's.
    """
    if (principal.tenant_id, str(principal.mode)) != (owner.tenant_id, owner.mode):
        return False
    if principal.actor_type in (ActorType.SERVICE, ActorType.OPERATOR):
        return True
    return principal.merchant_id == owner.merchant_id
