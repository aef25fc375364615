"""Puts the edge together; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paymesh.edge.v1 import add_EdgeServiceServicer_to_server

from common.paging import PageTokens
from common.service import Background, Kit, Service
from services.edge.config import EdgeSettings
from services.edge.peers import ChannelPeer, ContractPeers, MemberPeer, contract_services
from services.edge.rest.api import Guards, MerchantApi
from services.edge.rest.app import build_app
from services.edge.rest.callbacks import CallbackApi
from services.edge.rest.door import Door, InFlight
from services.edge.rest.http_server import HttpServer
from services.edge.rest.journal import Journal
from services.edge.rest.json_codec import JsonCodec
from services.edge.rest.merchant_keys import MerchantKeys
from services.edge.rest.once import IdempotencyKeys, Nonces
from services.edge.rest.rate_limit import RateLimits
from services.edge.rest.refusals import Refusals
from services.edge.rest.routes import build_routes
from services.edge.server import EdgeServicer
from services.edge.store import EdgeStore

NAME = "edge"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts; takes its HTTP port at once."""
    return (await build(kit, EdgeSettings()))[0]


async def build(kit: Kit, settings: EdgeSettings) -> tuple[Service, HttpServer]:
    """Build the service and its HTTP server, whose port may have been chosen by the system."""
    store = EdgeStore(await kit.pool(NAME), settings.tenant_id)
    refusals = Refusals(
        store.add_refusals,
        kit.clock,
        waiting_max=settings.refusals_waiting_max,
        per_second_max=settings.refusals_per_second_max,
    )
    journal = Journal(
        store.add_entries,
        partial(store.keep_partitions, settings.journal_keep_days),
        kit.clock,
        waiting_max=settings.journal_waiting_max,
    )
    routes = build_routes(contract_services(), JsonCodec())
    peers = ContractPeers(partial(kit.channel, NAME))
    for route in routes.routes:
        peers.prepare(route.service, route.rpc, route.response_class)
    merchants = MerchantApi(
        routes, peers.call, _guards(kit, settings), settings, kit.clock, kit.ids
    )
    channels = CallbackApi(
        ChannelPeer(kit.channel(NAME, "channel")).handle_callback, settings, kit.clock
    )
    door = partial(
        Door,
        in_flight=InFlight(settings.requests_in_flight_max),
        refusals=refusals,
        journal=journal,
        clock=kit.clock,
        ids=kit.ids,
        request_seconds=settings.request_seconds,
    )
    server = HttpServer(build_app(door(merchants), door(channels)), settings)
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    service = Service(
        NAME,
        register=[
            partial(add_EdgeServiceServicer_to_server, EdgeServicer(store, tokens)),
        ],
        background=[
            Background("edge http", server.run),
            Background("edge refusals", refusals.run, flush=refusals.flush),
            Background("edge journal", journal.run, flush=journal.flush),
            Background("edge journal partitions", journal.run_partitions),
        ],
        close=server.close,
    )
    return service, server


def _guards(kit: Kit, settings: EdgeSettings) -> Guards:
    member = MemberPeer(kit.channel(NAME, "member"))
    return Guards(
        keys=MerchantKeys(
            member.find_key,
            kit.clock,
            keys_max=settings.keys_max,
            unknown_seconds=settings.keys_unknown_seconds,
        ),
        nonces=Nonces(kit.redis, settings.signature_window_seconds, when_away=settings.redis_away),
        once=IdempotencyKeys(
            kit.redis,
            keep_seconds=settings.idempotency_seconds,
            when_away=settings.redis_away,
            holder=kit.ids.new("edg"),
        ),
        limits=RateLimits(kit.clock, settings.rate_per_second, settings.rate_burst),
    )
