"""`paymesh up`: the whole platform until interrupted."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from services.cli.deployment import TOPOLOGY_DEFAULT, Deployment, Plan


async def run_up(topology: Path | None) -> int:
    """Run everything; write `.local/<instance>/environment` for the other commands."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with Deployment(Plan(topology=topology or TOPOLOGY_DEFAULT)) as deployment:
        file = deployment.servers.folder / "environment"
        file.touch(mode=0o600)
        file.write_text(
            "".join(f"export {key}='{value}'\n" for key, value in deployment.environment.items())
        )
        print(f"REST at {deployment.edge_url}, sandbox at {deployment.sandbox_url}")
        for name, place in deployment.topology.services.items():
            print(f"  {name:<12} 127.0.0.1:{place.port}")
        print(f"other commands: source {file} && .venv/bin/paymesh audit")
        failed = asyncio.ensure_future(deployment.supervisor.wait_failed())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait([failed, stopped], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if failed.done():
            print(f"given up: {failed.result()}")
            return 1
        failed.cancel()
    return 0
