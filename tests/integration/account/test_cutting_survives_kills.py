"""Days are cut while postings and drains are under way and processes die: each ends closed, once.

Real processes, killed with -9 at whatever step of a cut or close they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import grpc.aio
import pytest
from paymesh.account.v1 import (
    AccountServiceStub,
    BusinessDayState,
    CutDayRequest,
    CutDayResponse,
    GeneralLedgerServiceStub,
    GetBusinessDateRequest,
    ListBusinessDaysRequest,
)

from common.clock import SystemClock
from common.context import bound
from common.embedded.cluster import Servers
from common.errors import PaymeshError
from common.events.broker import DEAD, EXCHANGE, UNROUTED, Broker
from common.ids import IdFactory
from tests.integration.account.load import Load, send
from tests.integration.account.served_ledger import NAME, OPERATOR, ServedLedger, serving
from tests.integration.account.test_ledger_survives_kills import Heard, note


@pytest.fixture(scope="module", autouse=True)
async def clean_broker(amqp_url: str, amqp_namespace: str) -> AsyncIterator[None]:
    yield
    broker = Broker(amqp_url, namespace=amqp_namespace)
    channel = await broker.channel()
    for queue in ("account.vouchers", "account.vouchers.dead", UNROUTED):
        await channel.queue_delete(broker.full_name(queue))
    for exchange in (EXCHANGE, UNROUTED, DEAD):
        await channel.exchange_delete(broker.full_name(exchange))
    await broker.close()


async def _today(ledger: ServedLedger) -> date:
    stub = AccountServiceStub(ledger.hosts[0].channel("operator", NAME))
    with bound(OPERATOR):
        answer = await stub.GetBusinessDate(GetBusinessDateRequest(), timeout=20)
    return date.fromisoformat(answer.business_date)


async def _cut(ledger: ServedLedger, host: int, to: date, seconds: float) -> CutDayResponse:
    stub = GeneralLedgerServiceStub(ledger.hosts[host].channel("operator", NAME))
    request = CutDayRequest(next_business_date=str(to))
    with bound(OPERATOR):
        answer: CutDayResponse = await stub.CutDay(request, timeout=seconds)
    return answer


async def test_killing_processes_while_days_are_cut_leaves_every_day_closed_once(
    database_url: str, servers: Servers, amqp_namespace: str, tmp_path: Path
) -> None:
    environment = {**servers.environment, "PAYMESH_POSTGRES_URL": database_url}
    async with serving(environment, amqp_namespace, tmp_path, processes=2) as ledger:
        load = Load(IdFactory(SystemClock()).new("tst"), 600)
        await ledger.open(load.specs)
        heard: Heard = {}
        first = last = await _today(ledger)
        sending = asyncio.create_task(send(ledger.post, load, partial(note, heard)))
        kills = 0
        while not sending.done() or kills < 4:
            last += timedelta(days=1)
            cuts = [asyncio.create_task(_cut(ledger, host, last, 5.0)) for host in (0, 1)]
            if (last - first).days % 3 == 0:
                name = ledger.names[kills % 2]
                restarts = ledger.supervisor.restarts(name)
                await ledger.supervisor.kill(name)
                await ledger.supervisor.wait_restarted(name, restarts)
                kills += 1
            for cut in cuts:
                with suppress(PaymeshError, grpc.aio.AioRpcError):
                    await cut
        await sending
        assert heard.keys() >= set(load.ids)
        async with asyncio.timeout(60):
            while True:
                with suppress(PaymeshError, grpc.aio.AioRpcError):
                    answer = await _cut(ledger, 0, last, 20.0)
                    break
        assert answer.business_date == str(last)
        assert await ledger.findings() == []
        await _assert_all_closed(ledger, last)


async def _assert_all_closed(ledger: ServedLedger, last: date) -> None:
    stub = GeneralLedgerServiceStub(ledger.hosts[0].channel("operator", NAME))
    with bound(OPERATOR):
        listed = await stub.ListBusinessDays(ListBusinessDaysRequest(page_size=500), timeout=20)
    today, *before = listed.days
    assert today.business_date == str(last)
    assert len(before) > 3
    closed = BusinessDayState.BUSINESS_DAY_STATE_CLOSED
    assert {day.state for day in before} == {closed}, before
    assert all(day.proof.holds and day.transfers_in_flight == 0 for day in before)
