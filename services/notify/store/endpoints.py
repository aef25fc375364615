"""Addresses of merchants."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from common.db.history import HistoryRow, add_history, cause_of_request
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Connection
from services.notify.domain.deliveries import Endpoint, Owner
from services.notify.store.rows import endpoint_from

_SQL: Final = load_queries("services.notify")


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """An address as it is to be written."""

    endpoint: Endpoint
    request_id: str
    sealed_secret: bytes
    actor: str
    biz_trace_id: str


class EndpointStore:
    """Reads and writes of addresses."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add_endpoint(self, new: NewEndpoint) -> Endpoint | None:
        """Write an address; return None when it is new, else the one that its request made."""
        endpoint, owner = new.endpoint, new.endpoint.owner
        async with self._pool.transaction() as connection:
            written = await connection.fetchval(
                _SQL["insert_endpoint"],
                endpoint.id,
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                new.actor,
                new.request_id,
                endpoint.url,
                list(endpoint.types),
                new.sealed_secret,
                new.biz_trace_id,
                endpoint.created_at,
            )
            if written is not None:
                row = HistoryRow(
                    noun="webhook_endpoint",
                    id=endpoint.id,
                    version=1,
                    from_state="",
                    to_state="ENABLED",
                    actor=new.actor,
                    at=endpoint.created_at,
                    biz_trace_id=new.biz_trace_id,
                    cause=cause_of_request(new.request_id),
                )
                await add_history(connection, [row])
                return None
        return await self.find_endpoint_of_request(owner, new.request_id)

    async def find_endpoint_of_request(self, owner: Owner, request_id: str) -> Endpoint | None:
        """Return the address that a request made."""
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                _SQL["find_endpoint_of_request"],
                owner.tenant_id,
                owner.mode,
                owner.merchant_id,
                request_id,
            )
        return None if row is None else endpoint_from(row)

    async def count_endpoints(self, owner: Owner) -> int:
        """Return how many addresses a merchant uses."""
        async with self._pool.acquire() as connection:
            return int(
                await connection.fetchval(
                    _SQL["count_endpoints"], owner.tenant_id, owner.mode, owner.merchant_id
                )
            )

    async def list_endpoints(self, owner: Owner, limit: int) -> list[Endpoint]:
        """Return addresses, oldest first; of all merchants when the owner names none."""
        async with self._pool.acquire() as connection:
            rows = await connection.fetch(
                _SQL["list_endpoints"], owner.tenant_id, owner.mode, owner.merchant_id, limit
            )
        return [endpoint_from(row) for row in rows]

    async def find_listeners(
        self, connection: Connection, owners: Collection[Owner]
    ) -> dict[Owner, list[Endpoint]]:
        """Return the addresses in use of each of these merchants."""
        rows = await connection.fetch(
            _SQL["find_listeners"],
            [owner.tenant_id for owner in owners],
            [owner.mode for owner in owners],
            [owner.merchant_id for owner in owners],
        )
        found: dict[Owner, list[Endpoint]] = {}
        for row in rows:
            endpoint = endpoint_from(row)
            found.setdefault(endpoint.owner, []).append(endpoint)
        return found
