"""Parts of a service that die at a step of one's choice, as a process does."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Fault:
    """Dies at one step: the n-th call, before or after its effect; -1 for never."""

    step: int = -1
    after: bool = False
    seen: int = 0

    @property
    def has_struck(self) -> bool:
        """Say whether it came to that step."""
        return 0 <= self.step < self.seen

    async def around(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work, or die."""
        here = self.seen == self.step
        self.seen += 1
        if here and not self.after:
            raise Crash
        result = await work()
        if here:
            raise Crash
        return result


class Breaking:
    """Any part whose public coroutines pass through a fault."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        """Return a coroutine function of the part behind the fault, all else as it is."""
        found = getattr(self._inner, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._fault.around(lambda: found(*arguments, **named))

        return call
