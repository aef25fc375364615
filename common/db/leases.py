"""A lease: one holder at a time of what only one should do, by the database's clock.

A lease saves work; it is not a lock. A holder that was stalled may act for a moment beside its
successor, so what is done under one must be harmless when done twice, or name the `epoch`.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from common.db.pool import Pool

_TAKE: Final = """
INSERT INTO leases AS held (name, holder, epoch, expires_at)
VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
ON CONFLICT (name) DO UPDATE SET
    holder = excluded.holder,
    epoch = CASE WHEN held.holder = excluded.holder THEN held.epoch ELSE held.epoch + 1 END,
    expires_at = clock_timestamp() + make_interval(secs => $3)
WHERE held.holder = excluded.holder OR held.expires_at <= clock_timestamp()
RETURNING epoch
"""
_GIVE_BACK: Final = """
UPDATE leases SET expires_at = clock_timestamp() WHERE name = $1 AND holder = $2
"""


class Lease:
    """One name in the table `leases` of a schema, for one would-be holder.

    `holder` must be unique to the process and task. The lease lasts `seconds` from each `hold`.
    """

    def __init__(
        self,
        pool: Pool,
        name: str,
        holder: str,
        *,
        seconds: float = 10.0,
        monotonic: Callable[[], float] = monotonic,
    ) -> None:
        self.name = name
        self.holder = holder
        self.seconds = seconds
        self.epoch = 0
        self._pool = pool
        self._monotonic = monotonic
        self._until = float("-inf")

    @property
    def seconds_left(self) -> float:
        """How long the lease is surely ours: counted from before it was asked for."""
        return self._until - self._monotonic()

    async def hold(self) -> bool:
        """Take or keep the lease; return whether it is ours.

        Costs nothing while more than half of the time is left.
        """
        if self.seconds_left > self.seconds / 2:
            return True
        asked_at = self._monotonic()
        async with self._pool.acquire() as connection:
            epoch = await connection.fetchval(_TAKE, self.name, self.holder, self.seconds)
        if epoch is None:
            self._until = float("-inf")
            return False
        self.epoch = int(epoch)
        self._until = asked_at + self.seconds
        return True

    async def give_back(self) -> None:
        """Let another have it at once."""
        if self.seconds_left <= 0:
            return
        self._until = float("-inf")
        async with self._pool.acquire() as connection:
            await connection.execute(_GIVE_BACK, self.name, self.holder)
