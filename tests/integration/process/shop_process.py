"""A process with one small service, run by the tests as a program and killed by them.

The service writes an event and a job for each echo it is told to note, by polling a table: so that
what happens at SIGTERM and at kill -9 can be seen from outside.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from common.context import Principal
from common.db.types import Connection
from common.events.consumer import Consumer
from common.events.event import Event, NewEvent
from common.events.outbox import Outbox
from common.events.relay import Relay
from common.jobs.job import Done, Job, JobKind, NewJob, Result
from common.jobs.jobs import Jobs
from common.jobs.worker import Worker
from common.mesh.host import Host
from common.process import serve
from common.service import Background, Kit, Service, ServiceSource

FOLDER = Path(__file__).parent


async def wire(kit: Kit) -> Service:
    """Build the service."""
    pool = await kit.pool("account")
    outbox, jobs = Outbox(), Jobs()

    async def sell() -> None:
        """Write one order after the other, each with an event and a job, as fast as may be."""
        while True:
            order = kit.ids.new("ord")
            principal = Principal(actor_id="account")
            now = kit.clock.now()
            async with pool.transaction() as connection:
                await connection.execute("INSERT INTO orders (order_id) VALUES ($1)", order)
                await outbox.add(
                    connection,
                    [
                        NewEvent(
                            event_id=kit.ids.new("evt"),
                            type="shop.order.sold.v1",
                            aggregate_id=order,
                            aggregate_version=1,
                            payload=b"sold",
                            principal=principal,
                            occurred_at=now,
                        )
                    ],
                )
                job_id = kit.ids.new("job")
                await jobs.add(connection, [NewJob(job_id, "ship", order, now, principal)])
            outbox.notify()
            jobs.notify()
            await asyncio.sleep(0.002)

    async def note(connection: Connection, events: Sequence[Event]) -> None:
        await connection.execute(
            "INSERT INTO heard (order_id) SELECT unnest($1::text[])",
            [event.aggregate_id for event in events],
        )

    async def ship(job: Job) -> Result:
        async with pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO shipped (order_id) VALUES ($1) ON CONFLICT DO NOTHING", job.key
            )
        return Done()

    consumer = Consumer(
        pool=pool,
        broker=kit.broker,
        queue="shop.sold",
        bindings=["shop.order.*.v1"],
        handler=note,
    )
    relay = Relay(pool, kit.broker, outbox)
    worker = Worker(pool, jobs, {"ship": JobKind(ship, lease_seconds=2)}, service="account")
    background: list[Background] = [
        Background("relay", relay.run, flush=relay.flush),
        Background("consumer", consumer.run),
        Background("worker", worker.run),
    ]
    if os.environ.get("SHOP_SELLS") == "1":
        background.append(Background("sell", sell))
    return Service("account", background=background, declare=[consumer.declare])


def say_ready(host: Host) -> None:
    """Tell the test on standard error that the process serves."""
    sys.stderr.write(f"ready {host.ports[0]} {datetime.now(UTC).isoformat()}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    source = ServiceSource("account", wire, FOLDER / "shop_migrations")
    sys.exit(serve([source], started=say_ready))
