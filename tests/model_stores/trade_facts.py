"""Facts of `trade`, for audits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows
from tests.model_stores.trade_tables import BOOK

_FACT: Final = Shape("key facts")
_ORDER: Final = (
    "state type merchant_id merchant_order_no currency_code amount_minor fee_minor refunded_minor"
    " payment_id user_id business_date biz_trace_id"
)
_REFUND: Final = (
    "state order_id payment_id merchant_id merchant_refund_no currency_code amount_minor"
    " fee_returned_minor failure_reason biz_trace_id"
)


def _facts(row: Values, names: str) -> dict[str, Any]:
    return {
        name: str(row[name]) if name.endswith("_minor") else row[name] for name in names.split()
    }


def _page(facts: Iterable[tuple[str, dict[str, Any]]], after: str, limit: int) -> list[Row]:
    found = sorted((one for one in facts if one[0] > after), key=lambda one: one[0])
    return [_FACT.row({"key": key, "facts": values}) for key, values in found[:limit]]


@BOOK.model
def list_order_facts(rows: Rows, tenant_id: str, mode: str, after: str, limit: int) -> list[Row]:
    found = rows["orders"].find(tenant_id=tenant_id, mode=mode)
    return _page(((row["id"], _facts(row, _ORDER)) for row in found), after, limit)


@BOOK.model
def list_refund_facts(rows: Rows, tenant_id: str, mode: str, after: str, limit: int) -> list[Row]:
    found = rows["refunds"].find(tenant_id=tenant_id, mode=mode)
    return _page(((row["id"], _facts(row, _REFUND)) for row in found), after, limit)


@BOOK.model
def list_unfinished(rows: Rows, tenant_id: str, mode: str, after: str, limit: int) -> list[Row]:
    world = {"tenant_id": tenant_id, "mode": mode}
    facts: list[tuple[str, dict[str, Any]]] = []
    for noun in ("order", "refund"):
        for one in rows[f"open_{noun}s"].rows():
            row = rows[f"{noun}s"].get(one[f"{noun}_id"])
            if row is not None and (row["tenant_id"], row["mode"]) == (tenant_id, mode):
                facts.append((row["id"], {"noun": noun, "state": row["state"]}))
    facts += [
        (row["job_id"], {"noun": "job", "state": row["state"], "kind": row["kind"]})
        for row in rows["jobs"].find(**world)
        if row["state"] in ("OPEN", "PARKED")
    ]
    facts += [
        (row["event_id"], {"noun": "event", "state": "WAITING", "type": row["type"]})
        for row in rows["outbox"].find(published_at=None, **world)
    ]
    for table, state in (("inbox_parked", "PARKED"), ("inbox_dead", "DEAD")):
        facts += [
            (row["event_id"], {"noun": "inbox", "state": state, "consumer": row["consumer"]})
            for row in rows[table].rows()
        ]
    return _page(facts, after, limit)
