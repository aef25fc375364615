"""Finishes what a crash left OPENING: asks the ledger again, which answers a repeat the same."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from common.context import ActorType, CallContext, Mode, Principal
from common.db.leases import Lease
from common.errors import PaymeshError
from services.member.flows.create_user import finish_user
from services.member.flows.parts import Parts
from services.member.flows.register_merchant import finish_merchant

_log = logging.getLogger(__name__)


async def finish_openings(parts: Parts, older_than_seconds: float) -> int:
    """Finish parties that have been OPENING for so long; return how many were."""
    before = parts.clock.now() - timedelta(seconds=older_than_seconds)
    users = await parts.store.list_opening_users(before)
    merchants = await parts.store.list_opening_merchants(before)
    work = [finish_user(parts, user) for user in users]
    results: list[object] = list(await asyncio.gather(*work, return_exceptions=True))
    for merchant in merchants:
        principal = Principal(
            tenant_id=merchant.tenant_id,
            mode=Mode(merchant.mode),
            actor_type=ActorType.SERVICE,
            actor_id="member",
        )
        try:
            await finish_merchant(parts, merchant, CallContext(principal=principal))
        except PaymeshError as error:
            results.append(error)
        else:
            results.append(None)
    failed = [one for one in results if isinstance(one, BaseException)]
    if failed:
        _log.warning("%d parties stay OPENING: %r", len(failed), failed[0])
    return len(results) - len(failed)


async def sweep(
    parts: Parts, lease: Lease, *, older_than_seconds: float, every_seconds: float
) -> None:
    """Look again and again, in one process at a time."""
    while True:
        if await lease.hold():
            await finish_openings(parts, older_than_seconds)
        await asyncio.sleep(every_seconds)
