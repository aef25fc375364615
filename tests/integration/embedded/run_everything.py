"""A run as the demo makes one: servers and a service, until it is ended from outside.

Arguments: the folder for the instance, and the servers to start.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import cast

from common.embedded.cluster import ServerName, Servers
from common.embedded.supervisor import Child, Supervisor


async def main() -> None:
    """Say "ready" when all runs; end well on SIGTERM."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    only = cast("list[ServerName]", sys.argv[2:])
    # A service with a helper that has left its session, as daemons do.
    service = Child(name="service", argv=["sh", "-c", "setsid sleep 600 & exec sleep 600"])
    async with Servers("run", private=True, local_folder=Path(sys.argv[1]), only=only) as servers:
        folders = {"run_folder": servers.folder / "run", "log_folder": servers.folder / "log"}
        async with Supervisor([service], **folders):
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await ended.wait()


asyncio.run(main())
