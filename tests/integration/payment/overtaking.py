"""A fault that lets others run before one step of a flow, instead of dying there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from payment_kit import Fault


@dataclass
class Overtaken(Fault):
    """Lets others run before one step, instead of dying there."""

    others: Callable[[], Awaitable[None]] | None = None
    reached: bool = False

    async def around(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work, perhaps after the others."""
        here = self.seen == self.step
        self.seen += 1
        if here and self.others is not None:
            self.reached = True
            await self.others()
        return await work()
