"""Statements of accounts outside of postings, and of the business date."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Final

from tests.model_stores.account_tables import ACCOUNT, BOOK, DAYS, LOCKED_ACCOUNT
from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows

_NEW: Final = (
    "id tenant_id mode owner_id merchant_id kind currency_code normal_side may_go_negative"
    " credit_limit_minor is_buffered"
)
_CHANGE: Final = (
    "book account_id request_id version changed_at verb before after actor reason biz_trace_id"
)
_UPDATED: Final = Shape("version updated_at")
_FOUND_CHANGE: Final = Shape("verb version after reason changed_at")
_CHANGE_ROW: Final = Shape(
    "request_id version changed_at verb before after actor reason biz_trace_id"
)
_DRAINED: Final = Shape("credits")
_BUFFER: Final = Shape("account_id")
_DATE: Final = Shape("business_date")
_BOOK_DATE: Final = Shape("book business_date")


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
    return [_with_buffer(rows, row) for row in rows["accounts"].find_keys(ids, book)]


@BOOK.model
def queue_for_account(rows: Rows, account_id: str) -> None:
    """Transactions of the model run one after the other."""


@BOOK.model
def lock_account(rows: Rows, book: int, account_id: str) -> list[Row]:
    return LOCKED_ACCOUNT.rows(rows["accounts"].find_keys([account_id], book))


@BOOK.model
def list_accounts_of_owner(rows: Rows, owner_id: str, tenant_id: str, mode: str) -> list[Row]:
    found = rows["accounts"].find(owner_id=owner_id, tenant_id=tenant_id, mode=mode)
    found.sort(key=lambda row: (row["kind"], row["currency_code"], row["id"]))
    return [_with_buffer(rows, row) for row in found]


def _with_buffer(rows: Rows, account: Values) -> Row:
    waiting = rows["buffered_credits"].find(book=account["book"], account_id=account["id"])
    return ACCOUNT.row(account, buffered_minor=sum(row["amount_minor"] for row in waiting))


@BOOK.model
def update_account(
    rows: Rows,
    book: int,
    account_id: str,
    status: str,
    credit_limit: int,
    court_frozen: int,
    is_buffered: bool,
) -> list[Row]:
    account = rows["accounts"].get(book, account_id)
    if account is None:
        return []
    after = rows["accounts"].update(
        account,
        status=status,
        credit_limit_minor=credit_limit,
        court_frozen_minor=court_frozen,
        is_buffered=is_buffered,
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


# Buffers.


@BOOK.model
def lock_buffer(rows: Rows, book: int, account_id: str) -> None:
    """Transactions of the model run one after the other."""


@BOOK.model
def drain_buffer(rows: Rows, book: int, account_id: str, limit: int, sum_max: int) -> list[Row]:
    account = rows["accounts"].get(book, account_id)
    if account is None:
        return []
    now, credited = rows.now(), account["credits_posted_minor"]
    room = sum_max - account["credits_pending_minor"]
    waiting = rows["buffered_credits"].find(book=book, account_id=account_id)
    drained = 0
    for row in sorted(waiting, key=lambda row: row["place"])[:limit]:
        if credited + row["amount_minor"] > room:
            break
        credited, drained = credited + row["amount_minor"], drained + 1
        rows["buffered_credits"].delete(row)
        rows["entries"].insert(
            {
                "book": book,
                "booked_at": now,
                "business_date": row["business_date"],
                "account_id": account_id,
                "version": account["version"] + drained,
                "transfer_id": row["transfer_id"],
                "is_debit": False,
                "amount_minor": row["amount_minor"],
                "debits_posted_minor": account["debits_posted_minor"],
                "credits_posted_minor": credited,
                "appended_at": row["booked_at"],
            }
        )
    if not drained:
        return []
    rows["accounts"].update(
        account,
        credits_posted_minor=credited,
        version=account["version"] + drained,
        updated_at=now,
    )
    return [_DRAINED.row({"credits": drained})]


@BOOK.model
def list_buffers(rows: Rows, book: int, limit: int) -> list[Row]:
    waiting = {row["account_id"] for row in rows["buffered_credits"].find(book=book)}
    return [_BUFFER.row({"account_id": one}) for one in sorted(waiting)[:limit]]


@BOOK.model
def list_buffers_after(rows: Rows, book: int, after_id: str, limit: int) -> list[Row]:
    waiting = {row["account_id"] for row in rows["buffered_credits"].find(book=book)}
    found = sorted(one for one in waiting if one > after_id)
    return [_BUFFER.row({"account_id": one}) for one in found[:limit]]


# The business date.


@BOOK.model
def read_business_date(rows: Rows, book: int) -> list[Row]:
    found = rows["business_dates"].get(book)
    return [] if found is None else [_DATE.row(found)]


@DAYS.model
def list_books(rows: Rows) -> list[Row]:
    return _BOOK_DATE.rows(sorted(rows["business_dates"].rows(), key=lambda row: row["book"]))


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
