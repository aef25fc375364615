"""The sandbox as a process of the mesh runs it: operators make the parties misbehave over it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from outside_parties import Channels, outcome_of, pay_request
from paymesh.sandbox.v1 import (
    FAULT_KIND_DECLINE,
    FAULT_KIND_OUTAGE,
    FaultRule,
    GetFaultPlanRequest,
    PutFaultPlanRequest,
    SandboxServiceStub,
)

from common import context
from common.context import ActorType, CallContext, Principal
from common.embedded.cluster import Servers
from common.embedded.ports import choose
from common.errors import RemoteError
from common.mesh.host import Host
from common.mesh.settings import MeshSettings
from common.mesh.topology import load_topology
from common.process import ProcessParts, run_process
from common.service import ServiceSource
from common.settings import Settings
from services.channel.results import DeclinedError
from services.sandbox import wiring
from services.sandbox.config import SandboxSettings
from services.sandbox.credentials import SandboxCredentials

ROOT = Path(__file__).parents[3]
OPERATOR = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="ann", roles=("operator",))
)
CLERK = CallContext(
    principal=Principal(actor_type=ActorType.OPERATOR, actor_id="bob", roles=("desk_maker",))
)
DECLINE = FaultRule(rule_id="decline", kind=FAULT_KIND_DECLINE, rate_ppm=1_000_000)


@asynccontextmanager
async def _process() -> AsyncIterator[SandboxServiceStub]:
    hosts: asyncio.Future[Host] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    parts = ProcessParts(
        settings=Settings(),
        mesh_settings=MeshSettings(),
        topology=load_topology(ROOT / "topology" / "processes.toml"),
        access_path=ROOT / "topology" / "access.toml",
        started=hosts.set_result,
    )
    source = ServiceSource("sandbox", wiring.wire, None)
    process = asyncio.create_task(run_process([source], parts, stop))
    await asyncio.wait([process, hosts], return_when=asyncio.FIRST_COMPLETED)
    if process.done():
        process.result()
    yield SandboxServiceStub(hosts.result().channel("operator", "sandbox"))
    stop.set()
    async with asyncio.timeout(30):
        await process


@pytest.fixture
def port(
    monkeypatch: pytest.MonkeyPatch,
    servers: Servers,
    database_url: str,
    redis_prefix: str,
    amqp_namespace: str,
    settings: SandboxSettings,
) -> int:
    """Where the parties of this test's process listen."""
    (port,) = choose(1)
    variables = {
        **servers.environment,
        "PAYMESH_POSTGRES_URL": database_url,
        "PAYMESH_REDIS_NAMESPACE": redis_prefix,
        "PAYMESH_AMQP_NAMESPACE": amqp_namespace,
        "PAYMESH_SANDBOX_PORT": str(port),
        "PAYMESH_SANDBOX_DATABASE_FILE": str(settings.database_file),
        "PAYMESH_SANDBOX_PARTIES_FILE": str(settings.parties_file),
        "PAYMESH_PORTS": json.dumps({"sandbox": 0}),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return port


async def test_operator_makes_the_parties_misbehave_until_told_otherwise(
    port: int, credentials: SandboxCredentials, session: aiohttp.ClientSession
) -> None:
    """Over the mesh, across a restart of the process; nobody else may, and nonsense is refused."""
    url = f"http://127.0.0.1:{port}"
    guard = Channels(credentials, session, url, url).guard("unionpay_a")
    with context.bound(OPERATOR):
        async with _process() as stub:
            await stub.PutFaultPlan(PutFaultPlanRequest(seed=4, rules=[DECLINE]))
            assert isinstance(await outcome_of(guard.pay(pay_request())), DeclinedError)
        async with _process() as stub:
            assert isinstance(await outcome_of(guard.pay(pay_request())), DeclinedError)
            told = await stub.GetFaultPlan(GetFaultPlanRequest())
            assert (told.seed, told.counts[0].hits) == (4, 2)
            for rule in (
                FaultRule(rule_id="NO", kind=FAULT_KIND_DECLINE),
                FaultRule(rule_id="no", kind=FAULT_KIND_OUTAGE),
            ):
                with pytest.raises(RemoteError) as refused:
                    await stub.PutFaultPlan(PutFaultPlanRequest(rules=[rule]))
                assert refused.value.remote_reason == "FIELD_INVALID"
            with context.bound(CLERK), pytest.raises(RemoteError) as refused:
                await stub.PutFaultPlan(PutFaultPlanRequest())
            assert refused.value.remote_reason == "PERMISSION_DENIED"
            await stub.PutFaultPlan(PutFaultPlanRequest())
            assert not isinstance(await outcome_of(guard.pay(pay_request())), DeclinedError)
