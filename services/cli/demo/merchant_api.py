"""How a careful merchant's program calls the platform: it repeats what may be repeated.

A change that was not answered may have happened. So it is sent again under the same
Idempotency-Key, as long as the platform advises it or says nothing at all, and for as long as the
program has patience.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from services.cli.demo.rest import Answer

IN_FLIGHT_MAX: Final = 128
"""Requests of the shop that are under way at a time."""

_PAUSE_FIRST_SECONDS: Final = 0.2
_PAUSE_LONGEST_SECONDS: Final = 5.0
_TOO_MANY: Final = 429


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the shop tries before it gives something up."""

    repeat_seconds: float
    """A request is repeated for so long."""
    end_seconds: float
    """A payment or refund is followed for so long."""
    payments_max: int
    """Payments that are made for one order, one after the other."""
    refunds_max: int
    """Refunds that are asked for until one is granted."""


QUIET: Final = Patience(repeat_seconds=15.0, end_seconds=120.0, payments_max=1, refunds_max=1)
"""When nothing goes wrong: whatever does is told at once."""

UNDER_FIRE: Final = Patience(
    repeat_seconds=240.0, end_seconds=420.0, payments_max=25, refunds_max=15
)
"""When everything goes wrong: the shop has minutes, and payers have other cards."""


class ShopError(Exception):
    """The platform answered something that the shop's program cannot go on from."""


class RefusedError(ShopError):
    """A request was refused in the end."""

    def __init__(self, what: str, answer: Answer) -> None:
        self.status = answer.status
        self.reason = str(answer.body.get("reason", ""))
        super().__init__(f"{what}: {answer.status} {self.reason} {answer.body.get('detail')}")


class Exchange(Protocol):
    """A signed request to the platform, sent once."""

    async def __call__(
        self, method: str, path: str, body: Mapping[str, Any] | None, idempotency_key: str
    ) -> Answer:
        """Send it."""
        ...


def may_repeat(answer: Answer) -> bool:
    """Say whether a request that was answered so may be sent again under the same key."""
    if answer.status < 400:
        return False
    advice = answer.body.get("retry", "")
    if advice:
        return advice in ("SAME_ID", "AFTER_DELAY")
    # Not the platform's own words: something between us and it.
    return answer.status >= 500 or answer.status == _TOO_MANY


def pause_before(repeat: int, answer: Answer) -> float:
    """Return the seconds before repeat number 1, 2 …: what was asked for, else growing ones."""
    growing = min(_PAUSE_FIRST_SECONDS * 2 ** min(repeat, 10), _PAUSE_LONGEST_SECONDS)
    return answer.retry_after_seconds or growing


class MerchantApi:
    """The shop's requests, over one pool of connections."""

    def __init__(self, exchange: Exchange, patience: Patience) -> None:
        self._exchange = exchange
        self._gate = asyncio.Semaphore(IN_FLIGHT_MAX)
        self.patience = patience

    async def post(self, path: str, body: Mapping[str, Any], key: str) -> dict[str, Any]:
        """Change something; `key` names the change for ever. Raises RefusedError."""
        return await self._send("POST", path, body, hashlib.sha256(key.encode()).hexdigest()[:40])

    async def get(self, path: str) -> dict[str, Any]:
        """Read something. Raises RefusedError."""
        return await self._send("GET", path, None, "")

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, key: str
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + self.patience.repeat_seconds
        repeat = 0
        while True:
            async with self._gate:
                answer = await self._exchange(method, path, body, key)
            if answer.status < 400:
                return answer.body
            if not may_repeat(answer) or loop.time() > until:
                raise RefusedError(f"{method} {path}", answer)
            repeat += 1
            await asyncio.sleep(pause_before(repeat, answer))
