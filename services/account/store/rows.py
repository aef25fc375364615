"""Rows as domain objects. The order of columns is that of `queries.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from common.db.queries import load_queries
from common.db.types import Record
from services.account.domain.accounts import Account, AccountState
from services.account.domain.transfers import (
    Hold,
    Refusal,
    StoredTransfer,
    Transfer,
    TransferKind,
    TransferStatus,
)

QUERIES: Final = load_queries("services.account")
"""The statements of this service."""

_STATE_COLUMNS: Final = 15
_ORDER_END: Final = 21


def account_from(row: Record) -> Account:
    """Read an account with what waits in its buffer."""
    return Account(*row)


def state_from(row: Record) -> AccountState:
    """Read what booking needs of an account; further columns behind that are left alone."""
    return AccountState(*row[:_STATE_COLUMNS])


def hold_from(row: Record) -> Hold:
    """Read an open hold."""
    return Hold(*row)


def transfer_from(row: Record) -> StoredTransfer:
    """Read what is kept under an id."""
    values: Sequence[object] = tuple(row)
    order = Transfer(values[0], TransferKind(values[1]), *values[2:_ORDER_END])  # type: ignore[arg-type]
    reason = row["reason"]
    return StoredTransfer(
        order,
        TransferStatus(row["status"]),
        None if reason is None else Refusal(reason, row["reason_metadata"] or {}),
        row["booked_minor"],
        row["business_date"],
        row["booked_at"],
        row["redirected_to"],
        row["debit_version"],
        row["credit_version"],
        row["is_buffered"],
    )
