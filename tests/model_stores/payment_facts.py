"""Facts of `payment`, for audits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tests.model_stores.payment_tables import BOOK
from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows

_PAYMENT: Final = Shape(
    "id order_id mode merchant_id product state currency_code amount_minor fee_minor"
    " refunded_minor user_id channel order_type attempt business_date received_currency_code"
    " received_minor return_attempt way_out late_returns"
)
_REFUND: Final = Shape(
    "id payment_id order_id mode merchant_id state currency_code amount_minor fee_returned_minor"
    " source_kind attempt business_date"
)
_EXCEPTION: Final = Shape(
    "id kind state mode merchant_id subject_id payment_id channel currency_code amount_minor"
    " default_action action maker checker resolution repeats"
)
_UNFINISHED: Final = Shape("id noun state")
_RECOVERED: Final = Shape("id noun state was_unknown")
_PAYMENT_ENDED: Final = ("SUCCEEDED", "FAILED", "CLOSED", "RETURNED", "UNCLAIMED")
_REFUND_ENDED: Final = ("SUCCEEDED", "FAILED")


def _page(found: Iterable[Values], after: str, limit: int) -> list[Values]:
    behind = [row for row in found if row["id"] > after]
    return sorted(behind, key=lambda row: str(row["id"]))[:limit]


@BOOK.model
def list_payment_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    return _PAYMENT.rows(_page(rows["payments"].rows(), after, limit))


@BOOK.model
def list_refund_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    return _REFUND.rows(_page(rows["refunds"].rows(), after, limit))


@BOOK.model
def list_exception_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    return _EXCEPTION.rows(_page(rows["exceptions"].rows(), after, limit))


@BOOK.model
def list_unfinished(rows: Rows, after: str, limit: int) -> list[Row]:
    found = [
        {"id": row[key], "noun": noun, "state": row["state"]}
        for table, key, noun, is_open in (
            ("payments", "id", "payment", lambda row: row["state"] not in _PAYMENT_ENDED),
            ("refunds", "id", "refund", lambda row: row["state"] not in _REFUND_ENDED),
            ("exceptions", "id", "exception", lambda row: row["state"] != "RESOLVED"),
            ("jobs", "job_id", "job", lambda row: row["state"] in ("OPEN", "PARKED")),
        )
        for row in rows[table].rows()
        if is_open(row)
    ]
    found += [
        {"id": row["event_id"], "noun": noun, "state": state}
        for table, noun, state in (
            ("outbox", "event", "WAITING"),
            ("inbox_parked", "heard event", "PARKED"),
            ("inbox_dead", "heard event", "DEAD"),
        )
        for row in rows[table].rows()
        if row.get("published_at") is None
    ]
    return _UNFINISHED.rows(_page(found, after, limit))


@BOOK.model
def list_recovered_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    found = []
    for table, noun, ended in (
        ("payments", "payment", _PAYMENT_ENDED),
        ("refunds", "refund", _REFUND_ENDED),
    ):
        for row in rows[table].rows():
            if row["state"] not in ended:
                continue
            moves = rows["history"].find(noun=noun, id=row["id"])
            states = [move["to_state"] for move in moves]
            was_unknown = "UNKNOWN" in states
            was_asked = any(
                move["version"] == row["version"] and move["cause"].startswith("job_")
                for move in moves
            )
            if noun == "payment" and "REQUIRES_ACTION" in states:
                was_asked = False
            if was_unknown or was_asked:
                found.append(
                    {
                        "id": row["id"],
                        "noun": noun,
                        "state": row["state"],
                        "was_unknown": was_unknown,
                    }
                )
    return _RECOVERED.rows(_page(found, after, limit))
