"""The shop's own HTTP server: takes webhooks, verifies them, counts them, tells who waits."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError


class WebhookReceiver:
    """Counts verified webhooks by type, each id once, and wakes the flow that waits for it."""

    def __init__(self) -> None:
        self.url = ""
        self.unique: Counter[str] = Counter()
        """Webhooks by type, each id counted once."""
        self.repeated = 0
        """Deliveries of an id that had come before."""
        self.refused = 0
        """Deliveries whose signature did not fit."""
        self._verifier: Webhook | None = None
        self._seen: set[str] = set()
        self._arrived: dict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        app = web.Application()
        app.router.add_post("/webhooks", self._receive)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/webhooks"

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    def trust(self, secret: str) -> None:
        """Verify what comes with the secret that the platform gave (`whsec_…`)."""
        self._verifier = Webhook(secret)

    async def wait_for(self, kind: str, subject: str, timeout_seconds: float) -> bool:
        """Wait until a webhook of a type has come for a noun; False when it has not in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._arrived[kind, subject].wait()
        except TimeoutError:
            return False
        return True

    async def wait_for_total(self, total: int, timeout_seconds: float) -> bool:
        """Wait until so many different webhooks have come; False when they have not in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.unique.total() < total:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    def has(self, kind: str, subject: str) -> bool:
        """Say whether a webhook of a type has come for a noun."""
        return self._arrived[kind, subject].is_set()

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._verifier is None:
            return web.Response(status=503)
        try:
            self._verifier.verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.refused += 1
            return web.Response(status=401)
        self._count(request.headers["webhook-id"], orjson.loads(body))
        return web.Response(status=204)

    def _count(self, webhook_id: str, body: dict[str, Any]) -> None:
        if webhook_id in self._seen:
            self.repeated += 1
            return
        self._seen.add(webhook_id)
        self.unique[body["type"]] += 1
        self._news.set()
        self._arrived[body["type"], body["data"]["id"]].set()
