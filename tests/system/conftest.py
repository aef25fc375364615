"""The whole platform in processes: once for all tests that use it, once for all that break it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from services.cli.demo.rest import RestClient
from services.cli.demo.run import register_merchant
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import Deployment, Plan
from services.cli.operator import operate
from tests.running_platform import Platform
from tests.system.battered import Battered, battering


@pytest.fixture(scope="session")
async def platform() -> AsyncIterator[Platform]:
    plan = Plan(
        instance="system",
        fresh_database=True,
        settings={
            "PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED": "true",
            "PAYMESH_PAYMENT_JANITOR_FIRST_SECONDS": "2",
            "PAYMESH_LOG_LEVEL": "WARNING",
        },
    )
    webhooks = WebhookReceiver()
    async with Deployment(plan) as deployment, operate(deployment.environment) as operator:
        merchant_id, signer = await register_merchant(operator)
        rest = RestClient(deployment.edge_url, signer, 64)
        await webhooks.start()
        async with aiohttp.ClientSession() as session:
            running = Platform(deployment, operator, merchant_id, signer, rest, session, webhooks)
            endpoint = await running.post("/v1/webhook_endpoints", {"url": webhooks.url})
            webhooks.trust(endpoint["secret"])
            yield running
        await rest.close()
        await webhooks.stop()


@pytest.fixture(scope="package")
async def battered() -> AsyncIterator[Battered]:
    async with battering("battered") as running:
        yield running
