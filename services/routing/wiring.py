"""Puts routing together; the only file that names concrete classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from paymesh.routing.v1 import add_RoutingServiceServicer_to_server

from common.service import Background, Kit, Service
from services.routing.config import RoutingSettings
from services.routing.rulebook import Rulebook
from services.routing.server import RoutingServicer
from services.routing.store import RuleStore

NAME = "routing"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts."""
    settings = RoutingSettings()
    # The database is read every few seconds and written by people: two connections are plenty.
    store = RuleStore(await kit.pool(NAME, connections_max=2))
    rulebook = Rulebook(store, kit.clock, settings.reload_seconds)
    await rulebook.begin(settings.rules_file)
    servicer = RoutingServicer(store, rulebook, kit.clock)
    return Service(
        NAME,
        register=[partial(add_RoutingServiceServicer_to_server, servicer)],
        background=[Background("routing rules", rulebook.run)],
    )
