"""Which channels there are, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from common.db.pool import Pool
from common.db.queries import load_queries

_SQL: Final = load_queries("services.channel")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelRow:
    """One channel; holds no secret."""

    code: str
    adapter: str
    products: tuple[str, ...]
    currency_codes: tuple[str, ...]
    amount_min_minor: int
    amount_max_minor: int
    request_life_seconds: int
    timeout_seconds: float
    suspended: bool
    config: Mapping[str, Any] = field(default_factory=dict)
    credentials: str
    """The name of its secrets in the file of credentials."""
    version: int = 0


class ChannelTable:
    """Reads and writes of the table `channels`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def put(self, channels: Sequence[ChannelRow], at: datetime) -> None:
        """Bring channels into the table; the version of one that is the same stays."""
        async with self._pool.transaction() as connection:
            for one in sorted(channels, key=lambda row: row.code):
                await connection.execute(
                    _SQL["put_channel"],
                    one.code,
                    one.adapter,
                    list(one.products),
                    list(one.currency_codes),
                    one.amount_min_minor,
                    one.amount_max_minor,
                    one.request_life_seconds,
                    one.timeout_seconds,
                    one.suspended,
                    dict(one.config),
                    one.credentials,
                    at,
                )

    async def read(self) -> list[ChannelRow]:
        """Return all channels, by code."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(_SQL["list_channels"])
        return [
            ChannelRow(
                code=row["code"],
                adapter=row["adapter"],
                products=tuple(row["products"]),
                currency_codes=tuple(row["currency_codes"]),
                amount_min_minor=row["amount_min_minor"],
                amount_max_minor=row["amount_max_minor"],
                request_life_seconds=row["request_life_seconds"],
                timeout_seconds=row["timeout_seconds"],
                suspended=row["suspended"],
                config=row["config"],
                credentials=row["credentials"],
                version=row["version"],
            )
            for row in rows
        ]
