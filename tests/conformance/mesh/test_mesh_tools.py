"""Any gRPC tool finds its way: health, reflection, and buf, which nobody here wrote."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from paymesh.mesh.connect import connect

from tests.conformance.mesh.conftest import StartMesh
from tests.conformance.mesh.mesh_kit import Mesh, eventually, within
from tests.conformance.mesh.probe import SERVICE

BUF = Path(sys.executable).with_name("buf")


@pytest.fixture
async def mesh(start_mesh: StartMesh) -> Mesh:
    """A mesh of two processes."""
    return await start_mesh("unary")


async def buf(*arguments: str) -> tuple[int, str, str]:
    """Run `buf curl`; return its exit status and what it says."""
    process = await asyncio.create_subprocess_exec(
        str(BUF),
        "curl",
        "--protocol",
        "grpc",
        "--http2-prior-knowledge",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await within(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_listing_by_buf_names_the_services(mesh: Mesh) -> None:
    status, out, err = await buf("--list-services", f"http://127.0.0.1:{mesh.far.ports[0]}")
    assert status == 0, err
    listed = out.split()
    assert "paymesh.mesh.v1.EchoService" in listed
    assert "paymesh.mesh.v1.MeshService" in listed
    assert "grpc.health.v1.Health" in listed


async def test_calling_by_buf_answers(mesh: Mesh) -> None:
    url = f"http://127.0.0.1:{mesh.far.ports[0]}/paymesh.mesh.v1.EchoService/Echo"
    status, out, err = await buf(
        "--timeout", "10s", "-H", "baggage: biz_trace_id=btr_9", "-d", '{"message": "hi"}', url
    )
    assert status == 0, err
    answer = json.loads(out)
    assert (answer["message"], answer["bizTraceId"]) == ("hi", "btr_9")


async def test_failing_by_buf_shows_the_reason(mesh: Mesh) -> None:
    url = f"http://127.0.0.1:{mesh.far.ports[0]}/paymesh.mesh.v1.EchoService/Echo"
    status, _, err = await buf("--timeout", "10s", "-d", '{"number": -1}', url)
    assert status != 0
    failure = json.loads(err)
    assert failure["code"] == "invalid_argument"
    assert [detail["type"] for detail in failure["details"]] == [
        "google.rpc.ErrorInfo",
        "google.rpc.BadRequest",
    ]


async def test_health_follows_the_process(mesh: Mesh) -> None:
    """Serving while it serves; not serving from the moment that it drains."""
    statuses: list[int] = []
    channel = connect(f"127.0.0.1:{mesh.far.ports[0]}")
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE, "paymesh.mesh.v1.MeshService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

    async def watch() -> None:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            async for answer in stub.Watch(request, timeout=30):
                statuses.append(answer.status)  # noqa: PERF401 - looked at while it grows
        except grpc.aio.AioRpcError:
            return

    watching = asyncio.ensure_future(watch())
    await eventually(lambda: len(statuses) == 1, "the watch begins")
    draining = asyncio.ensure_future(mesh.far.drain(1))
    await eventually(
        lambda: health_pb2.HealthCheckResponse.NOT_SERVING in statuses, "it says not serving"
    )
    await within(draining)
    await within(watching)
    await channel.close(None)
