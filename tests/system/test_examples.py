"""The examples of the README run as they are written, beside a platform that is up."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator

import pytest

from services.cli.deployment import ROOT, Deployment, Plan

EXAMPLES = ROOT / "docs" / "examples"


def _silent(_: str) -> None:
    """A test has nobody to tell what is being started."""


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    """All services, each in a process of its own, with empty books."""
    async with Deployment(Plan("examples", fresh_database=True, say=_silent)) as running:
        yield running


async def _run(deployment: Deployment, name: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        cwd=ROOT,
        env={**os.environ, **deployment.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return out.decode()


async def test_signed_rest_call_makes_an_order_and_reads_it(deployment: Deployment) -> None:
    text = await _run(deployment, "signed_rest_call.py")
    made, end = json.JSONDecoder().raw_decode(text)
    assert made == json.loads(text[end:])
    assert made["order"]["state"] == "CREATED"
    assert made["order"]["amount"] == {"currency_code": "USD", "amount_minor": 1230}


async def test_stub_client_call_travels_both_ways(deployment: Deployment) -> None:
    address = deployment.topology.address_of("trade")
    assert (
        await _run(deployment, "stub_client_call.py", address) == "unary: unary\nstream: stream\n"
    )
