"""Payments and refunds that have ended become clearing entries, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from common.db.types import Connection
from services.settlement.domain import ClearingEntry, ClearingKind, why_off
from services.settlement.errors import ClearingMismatchError, PaymentNotClearedError
from services.settlement.store import SettlementStore


async def clear_movements(
    store: SettlementStore,
    connection: Connection,
    entries: Sequence[ClearingEntry],
    exempt: Sequence[tuple[str, str]],
    at: datetime,
) -> None:
    """Write entries in the caller's transaction; `exempt`: payments (id, order type) without one.

    Raises:
        ClearingMismatchError: an entry does not add up, or differs from the one that is there.
        PaymentNotClearedError: a refund whose payment was not heard of yet.
    """
    for entry in entries:
        if reason := why_off(entry):
            raise ClearingMismatchError(reason)
    if exempt:
        await store.exempt_in(connection, exempt, at)
    payments = [entry for entry in entries if entry.kind is ClearingKind.PAYMENT]
    if payments:
        await store.insert_entries_in(connection, payments)
    refunds = [entry for entry in entries if entry.kind is ClearingKind.REFUND]
    if refunds:
        refunds = await _of_cleared_payments(store, connection, refunds)
    if refunds:
        await store.insert_entries_in(connection, refunds)


async def _of_cleared_payments(
    store: SettlementStore, connection: Connection, refunds: Sequence[ClearingEntry]
) -> list[ClearingEntry]:
    """Return the refunds of payments that made an entry, in the payments' stories."""
    known = await store.find_payments_in(connection, [entry.payment_id for entry in refunds])
    cleared = []
    for entry in refunds:
        if entry.payment_id not in known:
            raise PaymentNotClearedError(f"{entry.subject_id} is of {entry.payment_id}")
        is_exempt, story = known[entry.payment_id]
        if not is_exempt:
            cleared.append(replace(entry, biz_trace_id=entry.biz_trace_id or story))
    return cleared
