"""Statements of the exception desk."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from tests.model_stores.payment_tables import BOOK, EXCEPTION
from tests.model_stores.rows import Row, Shape
from tests.model_stores.statements import Rows
from tests.model_stores.tables import by_row

_CHANGE: Final = (
    "id expected_version state version detail due_at repeats action maker maker_reason checker"
    " checker_reason resolution updated_at"
)
_ID: Final = Shape("id")


@BOOK.model
def insert_exceptions(rows: Rows, *columns: list[Any]) -> list[Row]:
    added = [
        rows["exceptions"].insert_new(one, by_key=True)
        for one in by_row(" ".join(EXCEPTION.columns), columns)
    ]
    return _ID.rows(row for row in added if row is not None)


@BOOK.model
def update_exception(rows: Rows, *values: Any) -> list[Row]:
    change = dict(zip(_CHANGE.split(), values, strict=True))
    row = rows["exceptions"].get(change["id"])
    if row is None or row["version"] != change.pop("expected_version"):
        return []
    return [_ID.row(rows["exceptions"].update(row, **change))]


@BOOK.model
def find_exception(rows: Rows, exception_id: str) -> list[Row]:
    return EXCEPTION.rows(rows["exceptions"].find_keys([exception_id]))


@BOOK.model
def lock_open_exceptions(rows: Rows, subject_ids: list[str], ids: list[str]) -> list[Row]:
    found = [
        row
        for row in rows["exceptions"].rows()
        if (row["subject_id"] in subject_ids or row["id"] in ids) and row["state"] != "RESOLVED"
    ]
    return EXCEPTION.rows(sorted(found, key=lambda row: row["id"]))


@BOOK.model
def list_exceptions(
    rows: Rows,
    tenant_id: str,
    mode: str,
    kind: str,
    with_resolved: bool,
    after_due_at: datetime,
    after_id: str,
    limit: int,
) -> list[Row]:
    found = [
        row
        for row in rows["exceptions"].find(tenant_id=tenant_id, mode=mode)
        if kind in ("", row["kind"])
        and (with_resolved or row["state"] != "RESOLVED")
        and (row["due_at"], row["id"]) > (after_due_at, after_id)
    ]
    return EXCEPTION.rows(sorted(found, key=lambda row: (row["due_at"], row["id"]))[:limit])
