"""Puts member together; the only file that names concrete classes."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from paymesh.member.v1 import add_MemberServiceServicer_to_server

from common.db.leases import Lease
from common.paging import PageTokens
from common.sealing import Sealer
from common.service import Background, Kit, Service
from common.settings import DEVELOPMENT_SECRET, SettingMissingError
from services.member.config import MemberSettings
from services.member.flows.bind_card import CardVault
from services.member.flows.finish_openings import sweep
from services.member.flows.parts import Parts
from services.member.peers import AccountPeer
from services.member.server import MemberServicer
from services.member.store import MemberStore

NAME = "member"
MIGRATIONS = Path(__file__).parent / "migrations"


async def wire(kit: Kit) -> Service:
    """Build the service from a process's parts.

    Raises:
        SettingMissingError: in production, a key of card data still has its development value.
    """
    settings = MemberSettings()
    _check_secrets(kit, settings)
    pool = await kit.pool(NAME)
    peer = AccountPeer(kit.channel(NAME, "account"))
    parts = Parts(MemberStore(pool), peer.open_accounts, kit.clock, kit.ids)
    vault = CardVault(
        Sealer.parse(settings.card_keys.get_secret_value()),
        settings.card_hash_key.get_secret_value().encode(),
    )
    tokens = PageTokens(kit.settings.page_token_key.get_secret_value())
    servicer = MemberServicer(parts, vault, tokens, settings.key_ttl_seconds)
    lease = Lease(pool, "finish openings", f"{NAME}-{os.getpid()}")
    return Service(
        NAME,
        register=[partial(add_MemberServiceServicer_to_server, servicer)],
        background=[
            Background(
                "member openings",
                partial(
                    sweep,
                    parts,
                    lease,
                    older_than_seconds=settings.opening_seconds,
                    every_seconds=settings.opening_poll_seconds,
                ),
            ),
        ],
        close=parts.drain,
    )


def _check_secrets(kit: Kit, settings: MemberSettings) -> None:
    if kit.settings.environment != "production":
        return
    for name in ("card_keys", "card_hash_key"):
        if getattr(settings, name).get_secret_value() == DEVELOPMENT_SECRET:
            raise SettingMissingError(f"PAYMESH_MEMBER_{name.upper()} must be set in production")
