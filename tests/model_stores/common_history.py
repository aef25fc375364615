"""The append-only tables of a schema (`common/db/queries.sql`)."""

from __future__ import annotations

from typing import Any, Final

from tests.model_stores.rows import Row, Shape
from tests.model_stores.statements import Rows, StatementBook
from tests.model_stores.tables import TableSpec, spec

BOOK: Final = StatementBook("common.db")

_HISTORY: Final = "noun id version from_state to_state actor reason cause biz_trace_id at"
_AUDIT: Final = (
    "position at tenant_id mode actor on_behalf_of role action subject before_digest after_digest"
    " reason biz_trace_id previous_link link"
)

TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "history",
        f"{_HISTORY} recorded_at",
        "id noun version",
        append_only=True,
        checks={"history_version_check": lambda row: row["version"] > 0},
    ),
    spec("audit", _AUDIT, "position", append_only=True),
)

_HISTORY_ROW: Final = Shape(_HISTORY)
_AUDIT_ROW: Final = Shape(_AUDIT)
_LAST_AUDIT: Final = Shape("position link")


@BOOK.model
def add_history(rows: Rows, *columns: list[Any]) -> None:
    rows["history"].insert_columns(_HISTORY, columns, recorded_at=rows.now())


@BOOK.model
def list_history(rows: Rows, noun: str, noun_id: str) -> list[Row]:
    found = rows["history"].find(noun=noun, id=noun_id)
    return _HISTORY_ROW.rows(sorted(found, key=lambda row: row["version"]))


@BOOK.model
def lock_audit(rows: Rows) -> None:
    """Transactions run one after the other anyway."""


@BOOK.model
def find_last_audit(rows: Rows) -> list[Row]:
    found = rows["audit"].rows()
    return [_LAST_AUDIT.row(max(found, key=lambda row: row["position"]))] if found else []


@BOOK.model
def add_audit(rows: Rows, *values: Any) -> None:
    rows["audit"].insert(dict(zip(_AUDIT.split(), values, strict=True)))


@BOOK.model
def read_audit(rows: Rows, after: int, limit: int) -> list[Row]:
    found = [row for row in rows["audit"].rows() if row["position"] > after]
    return _AUDIT_ROW.rows(sorted(found, key=lambda row: row["position"])[:limit])
