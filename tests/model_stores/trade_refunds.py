"""Statements of refunds: asked for under their order's cap, settled, looked at again."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tests.model_stores.rows import Row, Shape
from tests.model_stores.statements import Rows
from tests.model_stores.tables import by_row
from tests.model_stores.trade_orders import put_off, take_due
from tests.model_stores.trade_tables import BOOK, ORDER, REFUND

_NEW: Final = (
    "id order_id payment_id tenant_id mode merchant_id actor request_id merchant_refund_no"
    " currency_code amount_minor reason biz_trace_id created_at"
)
_NEWS: Final = "id state currency_code amount_minor fee_returned_minor failure_reason"
_ID: Final = Shape("id")
_DUE: Final = Shape("refund_id attempts")
_SETTLED: Final = Shape(" ".join((*REFUND.columns, "from_state")))


@BOOK.model
def insert_refund(rows: Rows, *values: Any) -> list[Row]:
    refund = dict(zip(_NEW.split(), values, strict=True))
    added = rows["refunds"].insert_new(
        {**refund, "state": "PROCESSING", "version": 1, "updated_at": refund["created_at"]}
    )
    return [] if added is None else [_ID.row(added)]


@BOOK.model
def reserve_refund(rows: Rows, order_id: str, amount_minor: int) -> list[Row]:
    order = rows["orders"].get(order_id)
    if order is None or order["state"] != "COMPLETED" or order["payment_id"] == "":
        return []
    if order["refunded_minor"] + order["refunding_minor"] + amount_minor > order["amount_minor"]:
        return []
    refunding = order["refunding_minor"] + amount_minor
    return [_ID.row(rows["orders"].update(order, refunding_minor=refunding))]


@BOOK.model
def open_refund(rows: Rows, refund_id: str, due_at: datetime) -> None:
    rows["open_refunds"].insert({"refund_id": refund_id, "due_at": due_at})


@BOOK.model
def find_refund_in_the_way(
    rows: Rows, tenant_id: str, mode: str, merchant_id: str, request_id: str, number: str
) -> list[Row]:
    found = [
        row
        for row in rows["refunds"].find(tenant_id=tenant_id, mode=mode, merchant_id=merchant_id)
        if row["request_id"] == request_id or row["merchant_refund_no"] == number
    ]
    found.sort(key=lambda row: row["request_id"] != request_id)
    return REFUND.rows(found[:1])


@BOOK.model
def find_refunds(rows: Rows, ids: list[str]) -> list[Row]:
    return REFUND.rows(rows["refunds"].find_keys(ids))


@BOOK.model
def settle_refunds(rows: Rows, *columns: Any) -> list[Row]:
    *given, now = columns
    news = {one["id"]: one for one in by_row(_NEWS, given)}
    settled = []
    for row in rows["refunds"].find_keys(news):
        one = news[row["id"]]
        if any(row[name] != one[name] for name in ("currency_code", "amount_minor")):
            continue
        may_move = row["state"] == "PROCESSING" or (
            row["state"] == "WAITING_FUNDS" and one["state"] in ("COMPLETED", "FAILED")
        )
        if may_move:
            after = rows["refunds"].update(
                row,
                state=one["state"],
                fee_returned_minor=one["fee_returned_minor"],
                failure_reason=one["failure_reason"],
                version=row["version"] + 1,
                updated_at=now,
            )
            settled.append(_SETTLED.row(after, from_state=row["state"]))
    return settled


@BOOK.model
def settle_orders_of_refunds(
    rows: Rows, ids: list[str], given: list[int], released: list[int], now: datetime
) -> list[Row]:
    ended = dict(zip(ids, zip(given, released, strict=True), strict=True))
    settled = []
    for row in rows["orders"].find_keys(ids):
        given_minor, released_minor = ended[row["id"]]
        after = rows["orders"].update(
            row,
            refunded_minor=row["refunded_minor"] + given_minor,
            refunding_minor=row["refunding_minor"] - released_minor,
            version=row["version"] + (1 if given_minor > 0 else 0),
            updated_at=now if given_minor > 0 else row["updated_at"],
        )
        settled.append(ORDER.row(after))
    return settled


@BOOK.model
def forget_open_refunds(rows: Rows, ids: list[str]) -> None:
    for row in rows["open_refunds"].find_keys(ids):
        rows["open_refunds"].delete(row)


@BOOK.model
def take_due_refunds(rows: Rows, now: datetime, until: datetime, limit: int) -> list[Row]:
    return _DUE.rows(take_due(rows, "open_refunds", now, until, limit))


@BOOK.model
def put_off_refunds(rows: Rows, ids: list[str], due_at: list[datetime]) -> None:
    put_off(rows, "open_refunds", ids, due_at)
