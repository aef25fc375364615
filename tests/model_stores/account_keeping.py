"""Statements of accounts outside of postings, and of the business date."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from tests.model_stores.account_tables import ACCOUNT, BOOK
from tests.model_stores.rows import Row, Shape
from tests.model_stores.statements import Rows

_NEW: Final = (
    "id tenant_id mode owner_id merchant_id kind currency_code normal_side may_go_negative"
    " credit_limit_minor"
)
_CHANGE: Final = (
    "book account_id request_id version changed_at verb before after actor reason biz_trace_id"
)
_UPDATED: Final = Shape("version updated_at")
_FOUND_CHANGE: Final = Shape("verb version after reason changed_at")
_CHANGE_ROW: Final = Shape(
    "request_id version changed_at verb before after actor reason biz_trace_id"
)
_DATE: Final = Shape("business_date")


@BOOK.model
def insert_accounts(rows: Rows, book: int, *columns: list[Any]) -> None:
    rows["accounts"].insert_new_columns(
        _NEW,
        columns,
        book=book,
        version=1,
        created_at=rows.now(),
        updated_at=rows.now(),
        status="NORMAL",
    )


@BOOK.model
def read_accounts(rows: Rows, book: int, ids: list[str]) -> list[Row]:
    return ACCOUNT.rows(rows["accounts"].find_keys(ids, book))


@BOOK.model
def lock_account(rows: Rows, book: int, account_id: str) -> list[Row]:
    return ACCOUNT.rows(rows["accounts"].find_keys([account_id], book))


@BOOK.model
def list_accounts_of_owner(rows: Rows, owner_id: str, tenant_id: str, mode: str) -> list[Row]:
    found = rows["accounts"].find(owner_id=owner_id, tenant_id=tenant_id, mode=mode)
    found.sort(key=lambda row: (row["kind"], row["currency_code"], row["id"]))
    return ACCOUNT.rows(found)


@BOOK.model
def update_account(
    rows: Rows, book: int, account_id: str, status: str, credit_limit: int, court_frozen: int
) -> list[Row]:
    account = rows["accounts"].get(book, account_id)
    if account is None:
        return []
    after = rows["accounts"].update(
        account,
        status=status,
        credit_limit_minor=credit_limit,
        court_frozen_minor=court_frozen,
        version=account["version"] + 1,
        updated_at=rows.now(),
    )
    return [_UPDATED.row(after)]


@BOOK.model
def insert_account_change(rows: Rows, *values: Any) -> None:
    rows["account_changes"].insert(dict(zip(_CHANGE.split(), values, strict=True)))


@BOOK.model
def find_account_change(rows: Rows, book: int, account_id: str, request_id: str) -> list[Row]:
    found = rows["account_changes"].get(book, account_id, request_id)
    return [] if found is None else [_FOUND_CHANGE.row(found)]


@BOOK.model
def list_account_changes(rows: Rows, book: int, account_id: str) -> list[Row]:
    found = rows["account_changes"].find(book=book, account_id=account_id)
    return _CHANGE_ROW.rows(sorted(found, key=lambda row: row["version"]))


# The business date.


@BOOK.model
def read_business_date(rows: Rows, book: int) -> list[Row]:
    found = rows["business_dates"].get(book)
    return [] if found is None else [_DATE.row(found)]


@BOOK.model
def lock_business_date(rows: Rows, book: int) -> list[Row]:
    return read_business_date(rows, book)


@BOOK.model
def insert_business_date(rows: Rows, book: int, business_date: date, actor: str) -> None:
    rows["business_dates"].insert_new(
        {
            "book": book,
            "business_date": business_date,
            "advanced_at": rows.now(),
            "actor": actor,
        }
    )


@BOOK.model
def update_business_date(rows: Rows, book: int, business_date: date, actor: str) -> None:
    found = rows["business_dates"].get(book)
    if found is not None:
        advanced_at: datetime = rows.now()
        rows["business_dates"].update(
            found, business_date=business_date, advanced_at=advanced_at, actor=actor
        )


@BOOK.model
def insert_business_date_change(
    rows: Rows, book: int, business_date: date, previous: date, actor: str
) -> None:
    rows["business_date_changes"].insert(
        {
            "book": book,
            "business_date": business_date,
            "previous_date": previous,
            "advanced_at": rows.now(),
            "actor": actor,
        }
    )
