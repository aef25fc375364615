"""All safeties, by area."""

from __future__ import annotations

from typing import Final

from tests.mutations import (
    channels,
    doors,
    general_ledger,
    ledger,
    messages,
    orders,
    payments,
    vouchers,
)
from tests.mutations.safety import Safety

AREAS: Final[dict[str, tuple[Safety, ...]]] = {
    "The ledger": ledger.SAFETIES,
    "The inner books": vouchers.SAFETIES,
    "Days, periods, proofs": general_ledger.SAFETIES,
    "Orders and clearing": orders.SAFETIES,
    "Payments and refunds": payments.SAFETIES,
    "Channels": channels.SAFETIES,
    "Events, jobs, webhooks": messages.SAFETIES,
    "Doors, calls, batches": doors.SAFETIES,
}
"""Safeties by the heading that they stand under."""

SAFETIES: Final[tuple[Safety, ...]] = tuple(one for area in AREAS.values() for one in area)
