"""Every process of the platform answers health, lists its services and can be called by tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.cli.sources import SERVICES
from tests.running_platform import Platform

BUF = Path(sys.executable).with_name("buf")


@pytest.mark.parametrize("service", SERVICES)
async def test_asking_a_process_for_its_health_says_serving(
    platform: Platform, service: str
) -> None:
    address = platform.deployment.topology.address_of(service)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("service", SERVICES)
async def test_listing_services_by_reflection_names_ours(platform: Platform, service: str) -> None:
    address = platform.deployment.topology.address_of(service)
    listed = _buf("--list-services", f"http://{address}")
    assert f"paymesh.{service}.v1.{service.capitalize()}Service" in listed
    assert "paymesh.mesh.v1.MeshService" in listed
    assert "grpc.health.v1.Health" in listed


async def test_calling_a_probe_with_a_tool_answers(platform: Platform) -> None:
    address = platform.deployment.topology.address_of("account")
    url = f"http://{address}/paymesh.mesh.v1.EchoService/Echo"
    # Every call has a deadline, also one by hand.
    answer = _buf("--timeout", "5s", "-d", '{"message":"hello"}', url)
    assert '"message":"hello"' in answer.replace(" ", "")


def _buf(*arguments: str) -> str:
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout
