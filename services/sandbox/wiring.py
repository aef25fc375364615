"""Puts the sandbox together for a process of the mesh."""

from __future__ import annotations

from functools import partial

from paymesh.sandbox.v1 import add_SandboxServiceServicer_to_server

from common.service import Background, Kit, Service
from services.sandbox.config import SandboxSettings
from services.sandbox.server import SandboxServicer
from services.sandbox.serving import Sandbox


async def wire(kit: Kit) -> Service:
    """Return the sandbox: its contract beside its own HTTP port, from `PAYMESH_SANDBOX_…`."""
    sandbox = Sandbox(SandboxSettings(), kit.clock)
    return Service(
        name="sandbox",
        register=[
            partial(add_SandboxServiceServicer_to_server, SandboxServicer(sandbox)),
        ],
        background=[Background("sandbox http", sandbox.run)],
        close=sandbox.close,
    )
