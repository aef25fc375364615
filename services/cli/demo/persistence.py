"""An operator's calls while services die: repeated until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from common.errors import Outcome, PaymeshError, Retry

Result = TypeVar("Result")

PATIENCE_SECONDS: Final = 120.0
"""Longer than any process or server is away."""

_PAUSE_SECONDS: Final = 0.25


async def persist(
    call: Callable[[], Awaitable[Result]], seconds: float = PATIENCE_SECONDS
) -> Result:
    """Make a call that may be repeated until it is answered, for so many seconds.

    Raises:
        PaymeshError: refused for good, or not answered in time.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        try:
            return await call()
        except PaymeshError as error:
            is_final = error.outcome is not Outcome.UNKNOWN and error.retry is Retry.NEVER
            if is_final or loop.time() > until:
                raise
        await asyncio.sleep(_PAUSE_SECONDS)
