"""Not losing a cancellation to a library that turns it into an error of its own.

aiormq raises a channel's closing error in place of `CancelledError` when both come together;
whoever handles that error goes on as if nobody had asked it to stop. Endless loops ask here, once
a round.
"""

from __future__ import annotations

import asyncio


def heed_cancellation() -> None:
    """Raise CancelledError when the current task was cancelled and has not ended."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
