"""A generated stub called from outside the mesh, over plain gRPC and over a stream.

Needs the client package alone (the wheel, or this checkout), and an address that `make up` printed:

    .venv/bin/python docs/examples/stub_client_call.py 127.0.0.1:7101
"""

from __future__ import annotations

import asyncio
import sys

from paymesh.mesh import connect
from paymesh.mesh.v1 import EchoRequest, EchoServiceStub


async def call(target: str) -> None:
    """Call the echo that every process of the mesh answers, by both ways."""
    for way in ("unary", "stream"):
        channel = connect(target, "stream" if way == "stream" else "unary")
        answer = await EchoServiceStub(channel).Echo(EchoRequest(message=way), timeout=5)
        print(f"{way}: {answer.message}")
        await channel.close(None)


if __name__ == "__main__":
    asyncio.run(call(sys.argv[1]))
