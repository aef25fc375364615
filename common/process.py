"""One process of the platform, from its start to its end: any services, the same steps.

migrate → wire → serve → run what runs beside → wait for SIGTERM → drain → last words → close.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import uvloop

from common.background import BackgroundRunner
from common.backoff import Backoff
from common.clock import Clock, SystemClock
from common.db.failures import is_away
from common.db.migrations import migrate
from common.db.pool import Pool, SessionSettings, open_pool
from common.db.roles import prepare_schema
from common.events.broker import Broker
from common.ids import IdFactory
from common.logs import set_up_logs
from common.mesh.chain import production_chain
from common.mesh.host import Host
from common.mesh.middleware.authorisation import load_access
from common.mesh.settings import MeshSettings
from common.mesh.topology import Topology, TopologyError, load_topology
from common.redis import RedisPipeline, open_redis
from common.service import Service, ServiceSource
from common.settings import Settings, check_production
from common.telemetry.calls import observe_call
from common.telemetry.setup import Telemetry, set_up_telemetry

_log = logging.getLogger(__name__)

# Servers and services start in any order; a database that is away for longer is a fault to show.
_DATABASE_PATIENCE_SECONDS = 60.0
# Long enough for a broker that starts together with the services.
_BROKER_PATIENCE_SECONDS = 10.0
_CLOSE_SECONDS = 5.0
_BACKGROUND_STOP_SECONDS = 12.0
# Everything that lives as long as the process is kept out of collection; what is left is young. A
# batch of two thousand transfers is forty thousand objects, which with 10,000 here were looked at
# again and again while they lived: a tenth of the ledger's time. One pass takes about 3 ms.
_YOUNG_OBJECTS_MAX = 50_000


class ServiceUnknownError(Exception):
    """A process was asked to host a service that it was given no source of."""


@dataclass
class ProcessKit:
    """The shared parts of one process (`common.service.Kit`)."""

    settings: Settings
    clock: Clock
    ids: IdFactory
    redis: RedisPipeline
    broker: Broker
    host: Host
    schema_urls: dict[str, str]
    """Where each hosted service's schema is, under its own role."""
    _pools: dict[tuple[str, int, str | None], Pool] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def pool(
        self,
        service: str,
        *,
        connections_max: int | None = None,
        plan_cache_mode: str | None = None,
    ) -> Pool:
        """Return a pool on the schema of a hosted service; the same for the same arguments."""
        if service not in self.schema_urls:
            raise ServiceUnknownError(f"{service} has no schema in this process")
        size = connections_max or self.settings.postgres_connections_max
        key = (service, size, plan_cache_mode)
        async with self._opening:
            if key not in self._pools:
                settings = SessionSettings(
                    schema=service,
                    application_name=f"paymesh {service}",
                    plan_cache_mode=plan_cache_mode,
                )
                self._pools[key] = await open_pool(
                    self.schema_urls[service], settings, connections_max=size
                )
        return self._pools[key]

    def channel(
        self, caller: str, target: str, *, repeat_unknown: bool = False
    ) -> grpc.aio.Channel:
        """Return the channel on which `caller` reaches `target`."""
        return self.host.channel(caller, target, repeat_unknown=repeat_unknown)

    async def close(self) -> None:
        """Give back pools and connections, dropping what does not come back in time."""
        await asyncio.gather(*(_close_pool(pool) for pool in self._pools.values()))
        for close in (self.redis.close, self.broker.close):
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await close()


@dataclass(frozen=True)
class ProcessParts:
    """What a process is made of, where it differs from the usual."""

    settings: Settings
    mesh_settings: MeshSettings
    topology: Topology
    access_path: Path
    clock: Clock = field(default_factory=SystemClock)
    started: Callable[[Host], None] | None = None
    """Told when the process serves."""
    telemetry: Telemetry | None = None
    """Closed at the end."""


def serve(
    sources: Sequence[ServiceSource], *, started: Callable[[Host], None] | None = None
) -> int:
    """Run a process that hosts these services until it is told to stop; return its exit status.

    Settings come from the environment, the arrangement from the topology file.
    """
    faulthandler.enable()
    settings, mesh_settings = Settings(), MeshSettings()
    check_production(settings, mesh_settings)
    names = [source.name for source in sources]
    process = process_name(names)
    set_up_logs(process, level=settings.log_level, as_json=settings.log_json)
    telemetry = set_up_telemetry(
        process,
        endpoint=settings.otlp_endpoint,
        sampling_ratio=settings.trace_sampling_ratio,
    )
    topology_path = Path(settings.topology_path)
    parts = ProcessParts(
        settings=settings,
        mesh_settings=mesh_settings,
        topology=load_topology(topology_path),
        access_path=topology_path.parent / "access.toml",
        started=started,
        telemetry=telemetry,
    )
    try:
        uvloop.run(run_process(sources, parts))
    except Exception:  # noqa: BLE001 - said in the log, and by the exit status
        _log.exception("%s cannot go on", process)
        return 1
    finally:
        telemetry.shut_down()
    return 0


async def run_process(
    sources: Sequence[ServiceSource], parts: ProcessParts, stop: asyncio.Event | None = None
) -> None:
    """Run a process inside the current loop until a signal, or until `stop` is set.

    Raises:
        MigrationError, TopologyError, OSError, asyncpg.PostgresError: it cannot start.
    """
    if stop is None:
        stop = asyncio.Event()
        _stop_on_signals(stop)
    names = [source.name for source in sources]
    topology = host_together(parts.topology, names)
    schema_urls = await prepare_schemas(sources, parts.settings)
    host = Host(
        process=process_name(names),
        topology=topology,
        middleware=production_chain(
            settings=parts.mesh_settings,
            principal_key=parts.settings.principal_key.get_secret_value(),
            access=load_access(parts.access_path),
            clock=parts.clock,
            # The sampler decides; without an endpoint nobody would see what it decides for.
            root_ratio=1.0 if parts.settings.otlp_endpoint else 0.0,
            observe=observe_call if parts.settings.otlp_endpoint else None,
        ),
        clock=parts.clock,
        settings=parts.mesh_settings,
    )
    kit = _make_kit(parts, host, schema_urls, process_name(names))
    services: list[Service] = []
    runner = BackgroundRunner(services, stop_seconds=_BACKGROUND_STOP_SECONDS, broker=kit.broker)
    try:
        for source in sources:
            # One by one, so that those wired before a failure are closed.
            services.append(await source.wire(kit))  # noqa: PERF401
        for service in services:
            for register in service.register:
                host.add(service.name, register)
        await runner.declare(_BROKER_PATIENCE_SECONDS)
        await host.start()
        runner.start()
        _freeze_memory()
        _log.info("serving %s on %s", ", ".join(names), host.ports)
        if parts.started is not None:
            parts.started(host)
        await stop.wait()
        _log.info("stopping: %d calls in flight", host.calls_in_flight)
    finally:
        await _wind_down(host, runner, services, kit, parts.settings.drain_seconds)


async def prepare_schemas(sources: Sequence[ServiceSource], settings: Settings) -> dict[str, str]:
    """Bring the schema of each service that has tables up to date; return where they are.

    Waits a while for a database that is away. Safe when several processes do it at once.

    Raises:
        MigrationError: a migration cannot be applied.
        OSError, asyncpg.PostgresError: the database stays away or refuses.
    """
    urls: dict[str, str] = {}
    for source in sources:
        if source.migrations is None:
            continue
        url = settings.postgres_url_of(source.name).get_secret_value()
        folders = {source.name: source.migrations}
        urls[source.name] = await _patiently(source.name, _prepare_one(url, source.name, folders))
    return urls


def process_name(names: Sequence[str]) -> str:
    """Return the name of a process that hosts these services: `account+settlement`."""
    return "+".join(names)


def host_together(topology: Topology, names: Sequence[str]) -> Topology:
    """Return the arrangement in which one process hosts exactly these services.

    Raises:
        TopologyError: a service that the arrangement does not know.
    """
    unknown = [name for name in names if name not in topology.services]
    if unknown:
        raise TopologyError(f"topology {topology.name} knows no service {', '.join(unknown)}")
    others = {
        process: tuple(service for service in services if service not in names)
        for process, services in topology.processes.items()
    }
    processes = {process: services for process, services in others.items() if services}
    return topology.model_copy(
        update={"processes": {**processes, process_name(names): tuple(names)}}
    )


def _make_kit(
    parts: ProcessParts, host: Host, schema_urls: dict[str, str], process: str
) -> ProcessKit:
    settings = parts.settings
    return ProcessKit(
        settings=settings,
        clock=parts.clock,
        ids=IdFactory(parts.clock),
        redis=open_redis(settings.redis_url.get_secret_value(), namespace=settings.redis_namespace),
        broker=Broker(
            settings.amqp_url.get_secret_value(),
            namespace=settings.amqp_namespace,
            name=f"paymesh {process}",
        ),
        host=host,
        schema_urls=schema_urls,
    )


def _prepare_one(url: str, service: str, folders: dict[str, Path]) -> Callable[[], Awaitable[str]]:
    async def prepare() -> str:
        own_url = await prepare_schema(url, service)
        applied = await migrate(own_url, service, folders)
        if applied:
            _log.info("schema %s: applied %s", service, ", ".join(applied))
        return own_url

    return prepare


async def _patiently(name: str, work: Callable[[], Awaitable[str]]) -> str:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + _DATABASE_PATIENCE_SECONDS
    backoff = Backoff(first_seconds=0.1, longest_seconds=2)
    failures = 0
    while True:
        try:
            return await work()
        except Exception as error:
            if not is_away(error) or loop.time() > give_up_at:
                raise
            failures += 1
            _log.warning("the database of %s is away: %r", name, error)
            await asyncio.sleep(backoff.pause(failures))


async def _wind_down(
    host: Host,
    runner: BackgroundRunner,
    services: Sequence[Service],
    kit: ProcessKit,
    drain_seconds: float,
) -> None:
    """End in good order; no step keeps the next from being taken."""

    async def drain() -> None:
        # Together: calls that were accepted may need the work beside them, and the other way round.
        await asyncio.gather(host.drain(drain_seconds), runner.stop())

    steps: list[tuple[str, Callable[[], Awaitable[object]]]] = [
        ("drain", drain),
        *((f"close {service.name}", service.close) for service in services if service.close),
        # After the services, whose last writes may have made events.
        ("flush", runner.flush),
        ("mesh", host.close),
        ("kit", kit.close),
    ]
    for name, step in steps:
        try:
            await step()
        except Exception:  # noqa: BLE001 - the process ends either way
            _log.exception("stopping: %s failed", name)
    _log.info("stopped")


async def _close_pool(pool: Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_SECONDS):
            await pool.close()
    except Exception as error:  # noqa: BLE001 - the process ends, and the server undoes the rest
        _log.warning("a pool of %s was not given back: %r", pool.schema, error)
        pool.terminate()


def _stop_on_signals(stop: asyncio.Event) -> None:
    """Stop in good order at the first signal, at once at the second."""

    def hear() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, hear)


def _freeze_memory() -> None:
    """Keep what was made at start out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS_MAX, 10, 10)
