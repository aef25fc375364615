"""A `far` process of its own, for tests that kill it.

Its first argument is its port; with a second one, `open`, its calls wait for nothing.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from tests.conformance.mesh.mesh_kit import make_host, mesh_settings
from tests.conformance.mesh.probe import Probe


async def serve(port: int, is_open: bool) -> None:
    """Serve the probe until killed; says `ready`, then `begun` when a call waits."""
    probe = Probe()
    if is_open:
        probe.gate.set()
    host = make_host("far", port, "stream", mesh_settings())
    host.add("probe", probe.register)
    await host.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await probe.begun.wait()
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), sys.argv[2:] == ["open"]))
