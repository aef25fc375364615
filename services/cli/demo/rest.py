"""Signed REST requests of the shop's program, over one pool of connections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from paymesh.edge import RequestSigner

_TIMEOUT = aiohttp.ClientTimeout(total=30)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: dict[str, Any] = field(default_factory=dict)
    retry_after_seconds: float = 0.0
    """The pause that was asked for before a repeat; 0 when none was."""


class RestClient:
    """Sends signed requests to the edge."""

    def __init__(self, base_url: str, signer: RequestSigner, connections_max: int) -> None:
        self._base_url = base_url
        self._signer = signer
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections_max), timeout=_TIMEOUT
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, idempotency_key: str
    ) -> Answer:
        """Send a request once; return the answer.

        A connection that fails is answered as 503 with the advice to repeat under the same key,
        which is what the platform would say if it could.
        """
        payload = b"" if body is None else orjson.dumps(body)
        headers = self._signer.sign(method, path, payload, idempotency_key=idempotency_key or None)
        try:
            async with self._session.request(
                method, self._base_url + path, data=payload or None, headers=headers
            ) as response:
                content = await response.read()
                pause = response.headers.get("retry-after", "")
                return Answer(
                    response.status,
                    orjson.loads(content) if content else {},
                    float(pause) if pause.isdigit() else 0.0,
                )
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            detail = {"retry": "SAME_ID", "reason": "UNAVAILABLE", "detail": repr(error)}
            return Answer(503, detail)

    async def send(
        self, method: str, path: str, body: Mapping[str, Any] | None, idempotency_key: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a request once, as `exchange`; return the status and the JSON of the answer."""
        answer = await self.exchange(method, path, body, idempotency_key)
        return answer.status, answer.body
