"""How many payments a second the whole platform carries, from signed REST call to postings.

A payment here is an order and its balance payment over the REST edge: two signed requests, six
hops, five transactions, events and a webhook. The load generator runs on the same machine and
counts in; its requests are signed beforehand. Each service in a process of its own is measured
against all services in two processes, in windows that alternate on two deployments that are both
alive.

Run alone: `python -m tests.bench.payments`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import aiohttp
import orjson
import uvloop
from paymesh.edge import RequestSigner

from services.cli.demo.rest import RestClient
from services.cli.demo.run import register_merchant
from services.cli.demo.webhooks import WebhookReceiver
from services.cli.deployment import ROOT, Deployment, Plan
from services.cli.operator import operate

IN_FLIGHT: Final = 64
WINDOWS: Final = 5
PAYMENTS: Final = 600
"""Payments of one window: a second or two of work."""
USERS: Final = 50
_AMOUNT_MINOR: Final = 100
_FUNDS_MINOR: Final = 10_000_000

TOPOLOGIES: Final = {
    "payments_per_s_processes": "processes.toml",
    "payments_per_s_two_workers": "two_workers.toml",
}


@dataclass
class Target:
    """One deployment under load."""

    deployment: Deployment
    signer: RequestSigner
    session: aiohttp.ClientSession
    users: list[str]
    serial: int = 0


@dataclass(frozen=True, slots=True)
class Signed:
    """A request that only has to be sent."""

    path: str
    body: bytes
    headers: dict[str, str]


async def measure(windows: int = WINDOWS, payments: int = PAYMENTS) -> dict[str, float]:
    """Return payments per second by topology, the median of `windows` windows each."""
    rates: dict[str, list[float]] = {name: [] for name in TOPOLOGIES}
    async with AsyncExitStack() as stack:
        targets = {
            name: await _open(stack, name, ROOT / "topology" / file)
            for name, file in TOPOLOGIES.items()
        }
        for target in targets.values():  # plans, connections and caches are warm in service
            await _window(target, payments)
        for _ in range(windows):
            for name, target in targets.items():
                rates[name].append(await _window(target, payments))
    return {name: round(statistics.median(each), 1) for name, each in rates.items()}


async def _open(stack: AsyncExitStack, name: str, topology: Path) -> Target:
    plan = Plan(
        instance=f"bench-{name.rpartition('_')[2]}",
        topology=topology,
        fresh_database=True,
        settings={
            "PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED": "true",
            "PAYMESH_LOG_LEVEL": "WARNING",
        },
    )
    deployment = await stack.enter_async_context(Deployment(plan))
    async with operate(deployment.environment) as operator:
        _, signer = await register_merchant(operator)
    webhooks = WebhookReceiver()
    await webhooks.start()
    stack.push_async_callback(webhooks.stop)
    rest = RestClient(deployment.edge_url, signer, IN_FLIGHT)
    stack.push_async_callback(rest.close)
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT)
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
    endpoint = await _send(rest, "/v1/webhook_endpoints", {"url": webhooks.url}, "endpoint")
    webhooks.trust(endpoint["secret"])
    users = await asyncio.gather(
        *(_fund_user(rest, session, deployment.sandbox_url, number) for number in range(USERS))
    )
    return Target(deployment, signer, session, list(users))


async def _fund_user(
    rest: RestClient, session: aiohttp.ClientSession, sandbox_url: str, number: int
) -> str:
    """Register a user and fill its wallet through the sandbox, as a real payer would."""
    body: dict[str, Any] = {"merchant_user_no": f"bench-{number}", "currency_codes": ["USD"]}
    user_id = str((await _send(rest, "/v1/users", body, f"user-{number}"))["user"]["id"])
    order = {
        "merchant_order_no": f"fund-{number}",
        "type": "recharge",
        "amount": {"currency_code": "USD", "amount_minor": _FUNDS_MINOR},
        "user_id": user_id,
    }
    order_id = (await _send(rest, "/v1/orders", order, f"fund-{number}"))["order"]["id"]
    path = f"/v1/orders/{order_id}/payments"
    paid = await _send(rest, path, {"product": "qr_pay"}, f"fund-pay-{number}")
    code = paid["payment"]["next_action"]["show_qr"]["content"]
    payer = {"qr_code": code, "outcome": "pay"}
    async with session.post(f"{sandbox_url}/payer/alipay/pay", json=payer) as response:
        response.raise_for_status()
    async with asyncio.timeout(60):
        while True:
            _, answer = await rest.send("GET", f"/v1/orders/{order_id}", None, "")
            if answer["order"]["state"] == "COMPLETED":
                return user_id
            await asyncio.sleep(0.2)


async def _send(rest: RestClient, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
    status, answer = await rest.send("POST", path, body, f"bench-{key}")
    if status >= 400:
        raise RuntimeError(f"{path}: {status} {answer}")
    return answer


async def _window(target: Target, payments: int) -> float:
    """Make and pay `payments` orders; return payments per second of the two timed halves."""
    orders = []
    for _ in range(payments):
        target.serial += 1
        body = {
            "merchant_order_no": f"bench-{target.serial}",
            "amount": {"currency_code": "USD", "amount_minor": _AMOUNT_MINOR},
            "user_id": target.users[target.serial % len(target.users)],
        }
        orders.append(_sign(target, "/v1/orders", body, f"order-{target.serial}"))
    order_seconds, made = await _run(target, orders)
    pays = [
        _sign(
            target,
            f"/v1/orders/{answer['order']['id']}/payments",
            {"product": "balance"},
            f"pay-{answer['order']['merchant_order_no']}",
        )
        for answer in made
    ]
    pay_seconds, paid = await _run(target, pays)
    states = {answer["payment"]["state"] for answer in paid}
    if states != {"SUCCEEDED"}:
        raise RuntimeError(f"payments ended as {states}")
    return payments / (order_seconds + pay_seconds)


def _sign(target: Target, path: str, body: dict[str, Any], key: str) -> Signed:
    payload = orjson.dumps(body)
    return Signed(path, payload, target.signer.sign("POST", path, payload, idempotency_key=key))


async def _run(target: Target, requests: Sequence[Signed]) -> tuple[float, list[dict[str, Any]]]:
    """Send signed requests, `IN_FLIGHT` at a time; return the seconds and the answers."""
    waiting = iter(enumerate(requests))
    answers: list[dict[str, Any]] = [{} for _ in requests]

    async def worker() -> None:
        for place, request in waiting:
            async with target.session.post(
                target.deployment.edge_url + request.path,
                data=request.body,
                headers=request.headers,
            ) as response:
                answers[place] = orjson.loads(await response.read())
                if response.status >= 400:
                    raise RuntimeError(f"{request.path}: {response.status} {answers[place]}")

    begun_at = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(worker())
    return perf_counter() - begun_at, answers


def main() -> None:
    """Print the figures as JSON."""
    print(json.dumps(uvloop.run(measure()), indent=1))


if __name__ == "__main__":
    main()
