"""The shop's own HTTP server: takes webhooks, verifies them, counts them, tells who waits."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

Heard = tuple[str, str]
"""A webhook's type and the id of the noun that it tells of."""


class WebhookReceiver:
    """Counts verified webhooks by type, each id once, and wakes the flow that waits for it."""

    def __init__(self) -> None:
        self.url = ""
        self.unique: Counter[str] = Counter()
        """Webhooks by type, each id counted once."""
        self.heard: set[Heard] = set()
        """What has come."""
        self.repeated = 0
        """Deliveries of an id that had come before."""
        self.refused = 0
        """Deliveries whose signature did not fit."""
        self._verifier: Webhook | None = None
        self._seen: set[str] = set()
        self._waiting: defaultdict[Heard, set[asyncio.Event]] = defaultdict(set)
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
        return await self.wait_for_any([(kind, subject)], timeout_seconds)

    async def wait_for_any(self, wanted: Collection[Heard], timeout_seconds: float) -> bool:
        """Wait until one of some webhooks has come; False when none has in time."""
        if not self.heard.isdisjoint(wanted):
            return True
        arrived = asyncio.Event()
        for one in wanted:
            self._waiting[one].add(arrived)
        try:
            async with asyncio.timeout(timeout_seconds):
                await arrived.wait()
        except TimeoutError:
            return False
        finally:
            for one in wanted:
                self._waiting[one].discard(arrived)
                if not self._waiting[one]:
                    del self._waiting[one]
        return True

    async def wait_for_all(self, wanted: Collection[Heard], timeout_seconds: float) -> bool:
        """Wait until all of some webhooks have come; False when they have not in time."""
        missing = set(wanted)
        try:
            async with asyncio.timeout(timeout_seconds):
                while missing := missing - self.heard:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

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
        heard = (body["type"], body["data"]["id"])
        self.heard.add(heard)
        self._news.set()
        for waiting in self._waiting.get(heard, ()):
            waiting.set()
