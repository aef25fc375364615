"""Run the sandbox alone: `python -m services.sandbox`, set up by `PAYMESH_SANDBOX_…`."""

from __future__ import annotations

import asyncio
import signal

import uvloop

from services.sandbox.config import SandboxSettings
from services.sandbox.serving import serve


async def _main() -> None:
    task = asyncio.create_task(serve(SandboxSettings()))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


if __name__ == "__main__":
    uvloop.run(_main())
