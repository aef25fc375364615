"""Statements of payments, their attempts at channels, and refunds."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tests.model_stores.payment_tables import BOOK, NEW_PAYMENT, PAYMENT, REFUND
from tests.model_stores.rows import Row, Shape
from tests.model_stores.statements import Rows
from tests.model_stores.tables import by_row

_PAYMENT_CHANGE: Final = (
    "id expected_version state version channel channel_reason attempt action_kind action_content"
    " failure_reason decline_code raw_code advice business_date updated_at received_currency_code"
    " received_minor return_attempt retried_steps way_out late_returns"
)
_NEW_REFUND: Final = (
    "id payment_id order_id tenant_id mode merchant_id actor state version currency_code"
    " amount_minor fee_returned_minor reason attempt source_kind biz_trace_id created_at"
)
_REFUND_CHANGE: Final = (
    "id expected_version state version attempt source_kind failure_reason raw_code business_date"
    " updated_at retried_steps"
)
_ID: Final = Shape("id")
_CHANGED: Final = Shape("id has_exceptions")
_CHANGED_PAYMENT: Final = Shape("id expected_version has_exceptions")
_PAYMENT_ID: Final = Shape("payment_id")


def _has_exceptions(rows: Rows, subject_id: str) -> bool:
    return any(row["state"] != "RESOLVED" for row in rows["exceptions"].find(subject_id=subject_id))


@BOOK.model
def insert_payments(rows: Rows, *columns: list[Any]) -> list[Row]:
    added = [
        rows["payments"].insert_new({**one, "updated_at": one["created_at"]}, by_key=True)
        for one in by_row(NEW_PAYMENT, columns)
    ]
    return _ID.rows(row for row in added if row is not None)


@BOOK.model
def insert_attempts(rows: Rows, *columns: list[Any]) -> None:
    for one in by_row("payment_id attempt reference channel created_at", columns):
        rows["attempts"].insert_new(one, by_key=True)


@BOOK.model
def update_payments(rows: Rows, *columns: list[Any]) -> list[Row]:
    changes = by_row(_PAYMENT_CHANGE, columns)
    # As one statement sees them: no change of the batch is seen by another.
    before = {row["id"]: row for row in rows["payments"].find_keys(one["id"] for one in changes)}
    changed = []
    for change in changes:
        expected = change.pop("expected_version")
        row = before.get(change["id"])
        if row is not None and row["version"] == expected:
            after = rows["payments"].update(row, **change)
            concerned = _has_exceptions(rows, row["id"])
            changed.append(
                _CHANGED_PAYMENT.row(after, expected_version=expected, has_exceptions=concerned)
            )
    return changed


@BOOK.model
def find_payments(rows: Rows, ids: list[str]) -> list[Row]:
    return PAYMENT.rows(rows["payments"].find_keys(ids))


@BOOK.model
def find_payments_of_order(rows: Rows, order_id: str) -> list[Row]:
    found = rows["payments"].find(order_id=order_id)
    return PAYMENT.rows(sorted(found, key=lambda row: (row["created_at"], row["id"])))


@BOOK.model
def find_payment_of_reference(rows: Rows, reference: str) -> list[Row]:
    return _PAYMENT_ID.rows(rows["attempts"].find(reference=reference))


@BOOK.model
def lock_payment(rows: Rows, payment_id: str) -> list[Row]:
    return find_payments(rows, [payment_id])


# The cap of refunds.


@BOOK.model
def reserve_refund(
    rows: Rows, payment_id: str, amount_minor: int, fee_minor: int, now: datetime
) -> list[Row]:
    row = rows["payments"].get(payment_id)
    if row is None or row["state"] != "SUCCEEDED":
        return []
    if row["refunded_minor"] + row["refunding_minor"] + amount_minor > row["amount_minor"]:
        return []
    after = rows["payments"].update(
        row,
        refunding_minor=row["refunding_minor"] + amount_minor,
        fee_given_back_minor=row["fee_given_back_minor"] + fee_minor,
        updated_at=now,
    )
    return [_ID.row(after)]


@BOOK.model
def finish_refund_reservation(
    rows: Rows,
    payment_id: str,
    amount_minor: int,
    is_given_back: bool,
    fee_minor: int,
    now: datetime,
) -> None:
    row = rows["payments"].get(payment_id)
    if row is not None:
        rows["payments"].update(
            row,
            refunding_minor=row["refunding_minor"] - amount_minor,
            refunded_minor=row["refunded_minor"] + (amount_minor if is_given_back else 0),
            fee_given_back_minor=row["fee_given_back_minor"] - (0 if is_given_back else fee_minor),
            updated_at=now,
        )


# Refunds.


@BOOK.model
def insert_refund(rows: Rows, *values: Any) -> list[Row]:
    refund = dict(zip(_NEW_REFUND.split(), values, strict=True))
    refund |= {
        "failure_reason": "",
        "raw_code": "",
        "business_date": "",
        "updated_at": refund["created_at"],
    }
    added = rows["refunds"].insert_new(refund, by_key=True)
    return [] if added is None else [_ID.row(added)]


@BOOK.model
def find_refunds(rows: Rows, ids: list[str]) -> list[Row]:
    return REFUND.rows(rows["refunds"].find_keys(ids))


@BOOK.model
def update_refund(rows: Rows, *values: Any) -> list[Row]:
    change = dict(zip(_REFUND_CHANGE.split(), values, strict=True))
    row = rows["refunds"].get(change["id"])
    if row is None or row["version"] != change.pop("expected_version"):
        return []
    after = rows["refunds"].update(row, **change)
    return [_CHANGED.row(after, has_exceptions=_has_exceptions(rows, row["id"]))]
