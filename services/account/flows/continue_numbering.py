"""Let the journal's numbers go on where it was copied to another cluster by dump and restore.

There the ids of transactions begin anew: rows would get numbers that the cursor has long passed,
and never a voucher. So new numbers are shifted behind all that were given. In the cluster that the
journal was written in this does nothing.
"""

from __future__ import annotations

import logging

import asyncpg

from common.db.pool import Pool
from services.account.store.journal_numbering import (
    lock_numbering,
    read_numbering,
    shift_numbering,
)

_log = logging.getLogger(__name__)


async def continue_numbering(pool: Pool) -> bool:
    """Shift the journal's numbers where they have to be; return whether they are right now.

    False where others kept it waiting: call again.
    """
    async with pool.acquire() as connection:
        if not (await read_numbering(connection)).is_behind:
            return True
    try:
        async with pool.transaction() as connection:
            await lock_numbering(connection)
            # Another process may have done it meanwhile.
            numbering = await read_numbering(connection)
            if not numbering.is_behind:
                return True
            moved = await shift_numbering(connection, numbering)
    except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
        _log.warning("the journal comes from another cluster; its numbers go on when it is quiet")
        return False
    _log.warning(
        "the journal comes from another cluster: its numbers go on behind %d, and %d transfers"
        " that were booked here before follow",
        numbering.greatest,
        moved,
    )
    return True
