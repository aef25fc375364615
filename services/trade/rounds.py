"""Work that comes round: orders whose time has passed, refunds that were not heard of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from common.backoff import Backoff

_log = logging.getLogger(__name__)


async def run_rounds(
    name: str, once: Callable[[], Awaitable[int]], pause_seconds: float
) -> NoReturn:
    """Repeat `once` until cancelled: at once while it finds work, else after the pause."""
    backoff = Backoff()
    failures = 0
    while True:
        try:
            found = await once()
        except Exception as error:  # noqa: BLE001 - the rows wait until things are well again
            failures += 1
            _log.warning("%s: %r", name, error)
            await asyncio.sleep(backoff.pause(failures))
            continue
        failures = 0
        if found == 0:
            await asyncio.sleep(pause_seconds)
