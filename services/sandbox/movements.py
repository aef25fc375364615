"""The parties' own ledger: what really moved, whatever was answered."""

from __future__ import annotations

import enum
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from common.money import Money


class MovementKind(enum.StrEnum):
    """What kind of movement it was."""

    PAYMENT = "PAYMENT"
    REFUND = "REFUND"
    VOID = "VOID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One movement of money at an outside party."""

    movement_id: int
    party: str
    merchant_number: str
    reference: str
    payment_reference: str
    channel_transaction_no: str
    kind: MovementKind
    money: Money
    occurred_at: datetime


def write_movement(
    db: sqlite3.Connection,
    *,
    party: str,
    merchant_number: str,
    reference: str,
    payment_reference: str = "",
    channel_transaction_no: str,
    kind: MovementKind,
    money: Money,
    at: datetime,
) -> None:
    """Write a movement, in the transaction that moves the money."""
    db.execute(
        "INSERT INTO movements (party, merchant_number, reference, payment_reference,"
        " channel_transaction_no, kind, amount_minor, currency_code, occurred_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            party,
            merchant_number,
            reference,
            payment_reference,
            channel_transaction_no,
            kind.value,
            money.amount_minor,
            money.currency_code,
            at.timestamp(),
        ),
    )


def list_movements(
    db: sqlite3.Connection, *, after: int, limit: int, party: str = ""
) -> list[Movement]:
    """Return movements with a number above `after`, oldest first."""
    rows = db.execute(
        "SELECT movement_id, party, merchant_number, reference, payment_reference,"
        " channel_transaction_no, kind, amount_minor, currency_code, occurred_at FROM movements"
        " WHERE movement_id > ? AND ? IN ('', party) ORDER BY movement_id LIMIT ?",
        (after, party, limit),
    )
    return [
        Movement(
            movement_id=row["movement_id"],
            party=row["party"],
            merchant_number=row["merchant_number"],
            reference=row["reference"],
            payment_reference=row["payment_reference"],
            channel_transaction_no=row["channel_transaction_no"],
            kind=MovementKind(row["kind"]),
            money=Money(row["currency_code"], row["amount_minor"]),
            occurred_at=datetime.fromtimestamp(row["occurred_at"], UTC),
        )
        for row in rows
    ]
