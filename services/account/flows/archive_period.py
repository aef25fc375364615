"""Set the vouchers of a closed period aside, as whole tables; they are read as before."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from common.audit import add_audit, require_role
from common.backoff import Backoff
from common.context import CallContext
from common.errors import StateConflictError, UnavailableError
from services.account.domain.periods import Month, Period, PeriodState
from services.account.flows.close_period import ROLE, PeriodParts, audit_entry, with_balances
from services.account.store.periods import PartitionBusyError

_TRIES: Final = 20
_READERS: Final = Backoff(first_seconds=0.05, longest_seconds=1.0)


async def archive_period(
    parts: PeriodParts, month: Month, call: CallContext, at: datetime
) -> Period:
    """Set a period aside; a repeat answers as the first time.

    Raises:
        StateConflictError: it is not closed.
        UnavailableError: somebody reads its vouchers without a pause; nothing was done.
        RoleMissingError: the caller is no accountant.
    """
    require_role(call.principal, ROLE)
    for attempt in range(1, _TRIES + 1):
        try:
            period = await _archive(parts, month, call, at)
        except PartitionBusyError:
            await asyncio.sleep(_READERS.pause(attempt))
        else:
            return await with_balances(parts, period, call)
    raise UnavailableError(target="register of vouchers")


async def _archive(parts: PeriodParts, month: Month, call: CallContext, at: datetime) -> Period:
    async with parts.pool.acquire() as connection:
        period = await parts.periods.find(connection, month)
    if period is None:
        raise StateConflictError(resource="period", state=PeriodState.OPEN)
    if period.state == PeriodState.ARCHIVED:
        return period
    await parts.periods.bound_partitions(month)
    async with parts.pool.transaction() as connection:
        period = await parts.periods.lock_closed(connection, month)
        if period.state == PeriodState.CLOSED:
            await parts.periods.move_partitions(connection, month)
            period = await parts.periods.mark_archived(connection, month)
            await add_audit(connection, audit_entry("period.archive", month, call, at))
    return period
