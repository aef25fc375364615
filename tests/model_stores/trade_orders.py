"""Statements of orders: made, claimed, completed, closed, looked at again."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows
from tests.model_stores.tables import by_row
from tests.model_stores.trade_tables import BOOK, ORDER

_NEW: Final = (
    "id tenant_id mode merchant_id actor request_id merchant_order_no type state currency_code"
    " amount_minor fee_minor fee_rate_ppm fee_returned_on_refund user_id subject biz_trace_id"
    " metadata expires_in_seconds business_date expires_at created_at"
)
_ID: Final = Shape("id")
_CLAIMED: Final = Shape("id version biz_trace_id from_state")
_CLOSING: Final = Shape("id version biz_trace_id")
_DUE: Final = Shape("order_id attempts")
_DATE: Final = Shape("business_date")


@BOOK.model
def insert_orders(rows: Rows, *columns: list[Any]) -> list[Row]:
    added = [
        rows["orders"].insert_new({**order, "version": 1, "updated_at": order["created_at"]})
        for order in by_row(_NEW, columns)
    ]
    return _ID.rows(order for order in added if order is not None)


@BOOK.model
def open_orders(rows: Rows, *columns: list[Any]) -> None:
    rows["open_orders"].insert_columns("order_id due_at", columns)


@BOOK.model
def find_orders_in_the_way(rows: Rows, *columns: list[Any]) -> list[Row]:
    asked = by_row("tenant_id mode merchant_id request_id merchant_order_no", columns)
    names = ("tenant_id", "mode", "merchant_id")
    requests = {(*(one[name] for name in names), one["request_id"]) for one in asked}
    numbers = {(*(one[name] for name in names), one["merchant_order_no"]) for one in asked}
    return ORDER.rows(
        row
        for row in rows["orders"].rows()
        if (*(row[name] for name in names), row["request_id"]) in requests
        or (*(row[name] for name in names), row["merchant_order_no"]) in numbers
    )


@BOOK.model
def find_orders(rows: Rows, ids: list[str]) -> list[Row]:
    return ORDER.rows(rows["orders"].find_keys(ids))


@BOOK.model
def list_orders(
    rows: Rows,
    merchant_id: str,
    tenant_id: str,
    mode: str,
    before_id: str,
    number: str,
    limit: int,
) -> list[Row]:
    found = [
        row
        for row in rows["orders"].find(merchant_id=merchant_id, tenant_id=tenant_id, mode=mode)
        if (not before_id or row["id"] < before_id) and number in ("", row["merchant_order_no"])
    ]
    return ORDER.rows(sorted(found, key=lambda row: row["id"], reverse=True)[:limit])


@BOOK.model
def claim_orders(
    rows: Rows, order_ids: list[str], payment_ids: list[str], now: datetime
) -> list[Row]:
    claimed = []
    wanted = dict(zip(order_ids, payment_ids, strict=True))
    for row in rows["orders"].find_keys(order_ids):
        if row["payment_id"] == "" and row["state"] in ("CREATED", "CLOSING"):
            after = rows["orders"].update(
                row,
                state="PAID",
                payment_id=wanted[row["id"]],
                version=row["version"] + 1,
                updated_at=now,
            )
            claimed.append(_CLAIMED.row(after, from_state=row["state"]))
    return claimed


@BOOK.model
def complete_orders(rows: Rows, *columns: Any) -> list[Row]:
    *given, now = columns
    booked = by_row("order_id payment_id currency_code amount_minor business_date", given)
    by_order = {one["order_id"]: one for one in booked}
    completed = []
    for row in rows["orders"].find_keys(by_order):
        one = by_order[row["id"]]
        if row["state"] == "PAID" and all(
            row[name] == one[name] for name in ("payment_id", "currency_code", "amount_minor")
        ):
            after = rows["orders"].update(
                row,
                state="COMPLETED",
                business_date=one["business_date"],
                version=row["version"] + 1,
                updated_at=now,
            )
            completed.append(ORDER.row(after))
    return completed


def _move(rows: Rows, ids: list[str], before: str, after: str, now: datetime) -> list[Values]:
    return [
        rows["orders"].update(row, state=after, version=row["version"] + 1, updated_at=now)
        for row in rows["orders"].find_keys(ids)
        if row["state"] == before
    ]


@BOOK.model
def begin_closing(rows: Rows, ids: list[str], now: datetime) -> list[Row]:
    return _CLOSING.rows(_move(rows, ids, "CREATED", "CLOSING", now))


@BOOK.model
def finish_closing(rows: Rows, ids: list[str], now: datetime) -> list[Row]:
    return ORDER.rows(_move(rows, ids, "CLOSING", "CLOSED", now))


@BOOK.model
def forget_open_orders(rows: Rows, ids: list[str]) -> None:
    for row in rows["open_orders"].find_keys(ids):
        rows["open_orders"].delete(row)


@BOOK.model
def take_due_orders(rows: Rows, now: datetime, until: datetime, limit: int) -> list[Row]:
    return _DUE.rows(take_due(rows, "open_orders", now, until, limit))


@BOOK.model
def put_off_orders(rows: Rows, ids: list[str], due_at: list[datetime]) -> None:
    put_off(rows, "open_orders", ids, due_at)


@BOOK.model
def find_business_date(rows: Rows, tenant_id: str, mode: str) -> list[Row]:
    found = rows["business_dates"].get(tenant_id, mode)
    return [] if found is None else [_DATE.row(found)]


@BOOK.model
def keep_business_date(
    rows: Rows, tenant_id: str, mode: str, business_date: str, now: datetime
) -> None:
    known = rows["business_dates"].get(tenant_id, mode)
    if known is None:
        rows["business_dates"].insert(
            {
                "tenant_id": tenant_id,
                "mode": mode,
                "business_date": business_date,
                "updated_at": now,
            }
        )
    elif known["business_date"] < business_date:
        rows["business_dates"].update(known, business_date=business_date, updated_at=now)


def take_due(rows: Rows, table: str, now: datetime, until: datetime, limit: int) -> list[Values]:
    """Take open nouns whose time has come, and put them off."""
    due = [row for row in rows[table].rows() if row["due_at"] <= now]
    return [
        rows[table].update(row, due_at=until, attempts=row["attempts"] + 1)
        for row in sorted(due, key=lambda row: row["due_at"])[:limit]
    ]


def put_off(rows: Rows, table: str, ids: list[str], due_at: list[datetime]) -> None:
    """Look at open nouns again at these times."""
    for noun_id, at in zip(ids, due_at, strict=True):
        row = rows[table].get(noun_id)
        if row is not None:
            rows[table].update(row, due_at=at)
