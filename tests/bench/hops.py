"""What a call between two services costs, by the way that it travels.

Measured is user and system CPU of the caller's and the callee's process, per call: an echo of about
200 bytes, 64 calls in flight, each with a deadline and four pairs of metadata. *Bare* is the way
alone: for `unary` a generated stub on a plain grpc.aio channel and server, with none of our code.
*Full* has the production chain of middleware on both sides. Windows of all six are interleaved, so
that whatever else the machine does falls on all alike; the figure is the median window.

Run alone: `python -m tests.bench.hops`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import grpc.aio
import uvloop
from paymesh.mesh import connect
from paymesh.mesh.v1 import (
    EchoRequest,
    EchoResponse,
    EchoServiceStub,
    add_EchoServiceServicer_to_server,
)
from pydantic import SecretStr

from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal, bound
from common.mesh.chain import Chain, production_chain
from common.mesh.dispatch import Dispatcher
from common.mesh.echo import EchoServicer
from common.mesh.host import Host
from common.mesh.local_channel import LocalChannel
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import Topology, parse_topology

ROOT: Final = Path(__file__).resolve().parents[2]
IN_FLIGHT: Final = 64
WINDOWS: Final = 9
CALLS: Final = {"local": 16_000, "stream": 16_000, "unary": 2_000}
"""Calls in one window, by way: each about half a second of CPU."""

REQUEST: Final = EchoRequest(message="a call of the usual size", payload=b"x" * 170, number=7)
CONTEXT: Final = CallContext(
    principal=Principal(
        merchant_id="mer_01jd0000000000000000000000",
        actor_type=ActorType.MERCHANT,
        actor_id="key_01jd0000000000000000000000",
    ),
    biz_trace_id="btr_01jd0000000000000000000000",
    lane="canary",
    causation_id="evt_01jd0000000000000000000000",
)
"""Makes four pairs with the caller's token on stream and unary, three on the local way."""

METADATA: Final = (
    ("paymesh-caller", "payment.k1.1732240000." + "0123456789abcdef" * 4),
    ("paymesh-principal-bin", b"p" * 130),
    ("baggage", "biz_trace_id=btr_01jd0000000000000000000000"),
    ("paymesh-lane", "canary"),
)
TIMEOUT_SECONDS: Final = 10.0


def _topology(port: int) -> Topology:
    return parse_topology(
        {
            "name": "bench",
            "services": {"caller": {"port": 0}, "plain": {"port": 0}, "callee": {"port": port}},
            "processes": {"client": ["caller", "plain"], "server": ["callee"]},
            "pairs": [{"caller": "plain", "target": "callee", "way": "unary"}],
        }
    )


def _host(process: str, port: int, chain: Chain, settings: MeshSettings) -> Host:
    return Host(
        process=process,
        topology=_topology(port),
        middleware=chain,
        clock=SystemClock(),
        settings=settings,
    )


def _settings() -> MeshSettings:
    return MeshSettings(secret=SecretStr("bench"))


def _chain(settings: MeshSettings) -> Chain:
    return production_chain(
        settings=settings,
        principal_key="bench",
        access=load_access(ROOT / "topology" / "access.toml"),
        clock=SystemClock(),
    )


def _tidy_memory() -> None:
    """Treat memory as every process of the platform does once it serves (common.process)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


async def serve() -> None:
    """Be the callee: prints its ports, then its CPU time whenever it is asked on stdin."""
    settings = _settings()
    plain = grpc.aio.server()
    add_EchoServiceServicer_to_server(EchoServicer(), plain)
    plain_port = plain.add_insecure_port("127.0.0.1:0")
    await plain.start()
    bare = _host("server", 0, Chain(), settings)
    full = _host("server", 0, _chain(settings), settings)
    await bare.start()
    await full.start()
    _tidy_memory()
    sys.stdout.write(f"{json.dumps([plain_port, bare.ports[0], full.ports[0]])}\n")
    sys.stdout.flush()
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        sys.stdout.write(f"{_own_cpu_seconds()}\n")
        sys.stdout.flush()
    for host in (bare, full):
        await host.drain(1.0)
        await host.close()
    await plain.stop(None)


def _own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Callee:
    """The process on the other side."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def read(self) -> str:
        """Return the next line that it says."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode()

    async def cpu_seconds(self) -> float:
        """Return the CPU time that it has used."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self._process.stdin.drain()
        return float(await self.read())


@asynccontextmanager
async def _callee() -> AsyncIterator[Callee]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.bench.hops",
        "serve",
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Callee(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


BareCall = Callable[[], Awaitable[EchoResponse]]


async def _window(call: BareCall, calls: int, callee: Callee) -> float:
    """Return the CPU time of one call, in microseconds, both sides."""

    async def repeat() -> None:
        for _ in range(calls // IN_FLIGHT):
            await call()

    before = _own_cpu_seconds() + await callee.cpu_seconds()
    await asyncio.gather(*(repeat() for _ in range(IN_FLIGHT)))
    after = _own_cpu_seconds() + await callee.cpu_seconds()
    return (after - before) / (calls // IN_FLIGHT * IN_FLIGHT) * 1e6


def _bare(channel: grpc.aio.Channel) -> BareCall:
    echo = EchoServiceStub(channel).Echo
    return partial(echo, REQUEST, timeout=TIMEOUT_SECONDS, metadata=METADATA)


def _full(channel: grpc.aio.Channel) -> BareCall:
    return partial(EchoServiceStub(channel).Echo, REQUEST, timeout=TIMEOUT_SECONDS)


async def measure(windows: int = WINDOWS) -> dict[str, float]:
    """Return `hop_<way>_<bare|full>_cpu_us` and the two ratios of unary to stream."""
    async with AsyncExitStack() as stack:
        callee = await stack.enter_async_context(_callee())
        plain_port, bare_port, full_port = json.loads(await callee.read())
        settings = _settings()
        bare = _host("client", bare_port, Chain(), settings)
        full = _host("client", full_port, _chain(settings), settings)
        for host in (bare, full):
            stack.push_async_callback(host.close)
        unary = connect(f"127.0.0.1:{plain_port}", "unary")
        stream = connect(f"127.0.0.1:{bare_port}", "stream")
        local = LocalChannel(_bare_dispatcher(bare), "caller")
        for channel in (unary, stream, local):
            stack.push_async_callback(channel.close, None)
        ways: dict[str, tuple[str, BareCall]] = {
            "hop_local_bare_cpu_us": ("local", _bare(local)),
            "hop_stream_bare_cpu_us": ("stream", _bare(stream)),
            "hop_unary_bare_cpu_us": ("unary", _bare(unary)),
            "hop_local_full_cpu_us": ("local", _full(full.channel("caller", "caller"))),
            "hop_stream_full_cpu_us": ("stream", _full(full.channel("caller", "callee"))),
            "hop_unary_full_cpu_us": ("unary", _full(full.channel("plain", "callee"))),
        }
        seen: dict[str, list[float]] = {name: [] for name in ways}
        _tidy_memory()
        with bound(CONTEXT):
            for way, call in ways.values():  # connections, caches and the interpreter warm up
                await _window(call, CALLS[way] // 4, callee)
            for _ in range(windows):
                for name, (way, call) in ways.items():
                    seen[name].append(await _window(call, CALLS[way], callee))
    figures = {name: round(statistics.median(values), 2) for name, values in seen.items()}
    for kind in ("bare", "full"):
        # Within a round, so that a machine whose speed drifts treats both alike.
        pairs = zip(
            seen[f"hop_unary_{kind}_cpu_us"], seen[f"hop_stream_{kind}_cpu_us"], strict=True
        )
        figures[f"hop_unary_to_stream_{kind}"] = round(
            statistics.median(unary / stream for unary, stream in pairs), 2
        )
    return figures


def _bare_dispatcher(host: Host) -> Dispatcher:
    return host._dispatcher


def main() -> None:
    """Print the figures as JSON; with `serve`, be the process that is called."""
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
        return
    sys.stdout.write(f"{json.dumps(uvloop.run(measure()), indent=2)}\n")


if __name__ == "__main__":
    main()
