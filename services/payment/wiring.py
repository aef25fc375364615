"""Puts payment together; the only file that names concrete classes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from paymesh.payment.v1 import add_PaymentServiceServicer_to_server

from common.backoff import Backoff
from common.events.consumer import Consumer
from common.events.outbox import Outbox
from common.events.relay import Relay
from common.jobs.job import JobKind
from common.jobs.jobs import Jobs
from common.jobs.worker import Worker
from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.payment.config import PaymentSettings
from services.payment.events import BINDINGS, Announcements, ChannelNews
from services.payment.flows.ask_on_read import Readers
from services.payment.flows.janitor import Janitor
from services.payment.flows.parts import Parts
from services.payment.peers import Peers
from services.payment.products import PRODUCTS
from services.payment.server import PaymentServicer
from services.payment.store.exceptions import ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.reading import ReadingStore
from services.payment.store.refunds import RefundStore
from services.payment.store.rows import ADVANCE_PAYMENT, ADVANCE_REFUND, CARRY_OUT
from services.payment.writer import PaymentWriter

NAME = "payment"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = PaymentSettings()
    pool = await kit.pool(NAME)
    outbox, jobs = Outbox(), Jobs()
    exceptions = ExceptionStore(pool, outbox, jobs, Announcements())
    store = PaymentStore(pool, outbox, jobs, exceptions)
    refunds = RefundStore(pool, outbox, jobs, exceptions)
    writer = PaymentWriter(store, settings.flush_items_max)
    peers = Peers(
        trade=kit.channel(NAME, "trade"),
        routing=kit.channel(NAME, "routing"),
        risk=kit.channel(NAME, "risk"),
        account=kit.channel(NAME, "account"),
        channel=kit.channel(NAME, "channel"),
    )
    PRODUCTS.load()
    products = {name: found.plugin for name, found in PRODUCTS.items()}
    parts = Parts(store, refunds, exceptions, writer, peers, kit.clock, settings, products)
    janitor = Janitor(parts)
    consumer = Consumer(
        pool=pool,
        broker=kit.broker,
        queue="payment.channel",
        bindings=BINDINGS,
        handler=ChannelNews(jobs, exceptions, store, refunds, parts.deadlines, kit.clock).handle,
    )
    relay = Relay(pool, kit.broker, outbox, holder=f"{NAME}-{os.getpid()}")
    # The handlers name their own pauses; this one is for questions that failed.
    failed = Backoff(
        first_seconds=settings.janitor_first_seconds,
        longest_seconds=settings.janitor_longest_seconds,
    )
    worker = Worker(
        pool,
        jobs,
        {
            ADVANCE_PAYMENT: JobKind(janitor.ask_about_payment, backoff=failed, attempts_max=None),
            ADVANCE_REFUND: JobKind(janitor.ask_about_refund, backoff=failed, attempts_max=None),
            CARRY_OUT: JobKind(janitor.carry_out_exception, backoff=failed, attempts_max=None),
        },
        service=NAME,
    )
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    readers = Readers(store, kit.clock, settings)
    servicer = PaymentServicer(parts, ReadingStore(pool), readers, tokens)

    async def close() -> None:
        await readers.drain()
        await writer.drain()

    return Service(
        NAME,
        register=[partial(add_PaymentServiceServicer_to_server, servicer)],
        background=[
            Background("payment relay", relay.run, flush=relay.flush),
            Background("payment channel news", consumer.run),
            Background("payment janitor", worker.run),
        ],
        close=close,
        declare=[consumer.declare],
    )
