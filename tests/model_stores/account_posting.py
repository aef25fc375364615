"""The statements of the posting path: what the lane locks, reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Final

from tests.model_stores.account_tables import (
    ACCOUNT_STATE,
    BOOK,
    HOLD,
    NEW_ENTRY,
    NEW_TRANSFER,
    TRANSFER,
)
from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows
from tests.model_stores.tables import by_row

_LOCKED: Final = Shape(" ".join((*ACCOUNT_STATE.columns, "business_date", "now")))
_SHARED: Final = Shape(" ".join((*ACCOUNT_STATE.columns, "now")))
_NO_ACCOUNT: Final[Values] = dict.fromkeys(ACCOUNT_STATE.columns)
_FATE: Final = Shape("id fate")
_COUNT: Final = Shape("count")

_BOOKED: Final[Values] = {
    "status": "BOOKED",
    "reason": None,
    "reason_metadata": None,
    "is_buffered": False,
}
_MOVED: Final = tuple(name for name in NEW_TRANSFER.split() if name not in _BOOKED)

_TRANSFERS_END: Final = len(NEW_TRANSFER.split())
_ENTRIES_END: Final = _TRANSFERS_END + len(NEW_ENTRY.split())
_FOLD: Final = (
    "id debits_posted_minor credits_posted_minor debits_pending_minor credits_pending_minor version"
)
_FLAGS: Final = frozenset(
    {
        "keep_rest",
        "linked",
        "forced",
        "balancing_debit",
        "balancing_credit",
        "is_buffered",
        "is_debit",
    }
)


@BOOK.model
def lock_holds(rows: Rows, book: int, ids: list[str]) -> list[Row]:
    if rows["business_dates"].get(book) is None:
        return []
    return HOLD.rows(rows["holds"].find_keys(ids, book))


@BOOK.model
def lock_accounts(rows: Rows, book: int, ids: list[str]) -> list[Row]:
    day = rows["business_dates"].get(book)
    if day is None:
        return []
    found = rows["accounts"].find_keys(ids, book)
    locked = [_LOCKED.row(row, business_date=None, now=None) for row in found]
    last = _LOCKED.row(_NO_ACCOUNT, business_date=day["business_date"], now=rows.now())
    return [*locked, last]


@BOOK.model
def share_accounts(rows: Rows, book: int, ids: list[str]) -> list[Row]:
    shared = [_SHARED.row(row, now=None) for row in rows["accounts"].find_keys(ids, book)]
    return [*shared, _SHARED.row(_NO_ACCOUNT, now=rows.now())]


@BOOK.model
def read_transfers(rows: Rows, book: int, ids: list[str], low: str, high: str) -> list[Row]:
    found = rows["transfers"].find_keys(ids, book)
    return TRANSFER.rows(row for row in found if low <= row["id"] <= high)


@BOOK.model
def read_fates(rows: Rows, book: int, ids: list[str], low: str, high: str) -> list[Row]:
    # Those of resolutions come first: the caller lets the first word on an id win.
    fates = [
        _FATE.row(row, id=row["pending_id"])
        for row in rows["resolutions"].find_keys(ids, book)
        if low <= row["pending_id"] <= high
    ]
    for row in rows["transfers"].find_keys(ids, book):
        if row["kind"] == "PENDING" and row["status"] != "REFUSED":
            continue
        if row["kind"] != "PENDING":
            fate = "NOT_PENDING"
        else:
            fate = "REFUSED" if row["debit_account_id"] else "TOMBSTONE"
        fates.append(_FATE.row(row, fate=fate))
    return fates


@BOOK.model
def write_batch(
    rows: Rows, book: int, now: datetime, business_date: date, separator: str, *columns: Any
) -> list[Row]:
    constants = {"book": book, "booked_at": now, "business_date": business_date}
    transfers = _taken_apart(NEW_TRANSFER, separator, columns[:_TRANSFERS_END])
    entries = _taken_apart(NEW_ENTRY, separator, columns[_TRANSFERS_END:_ENTRIES_END])
    folds = _taken_apart(_FOLD, separator, columns[_ENTRIES_END:])
    kept = rows["transfers"].insert_new_columns(NEW_TRANSFER, transfers, **constants)
    rows["entries"].insert_columns(NEW_ENTRY, entries, **constants)
    for fold in by_row(_FOLD, folds):
        account = rows["accounts"].get(book, fold["id"])
        if account is not None:
            rows["accounts"].update(account, **fold, updated_at=now)
    return [_COUNT.row({"count": len(kept)})]


def _taken_apart(names: str, separator: str, columns: Sequence[Any]) -> list[list[Any]]:
    """Return columns of values from those that came as texts; the first has all its rows."""
    count = len(_elements(columns[0], separator))
    taken = []
    for name, column in zip(names.split(), columns, strict=True):
        found = _elements(column, separator)
        found += [None] * (count - len(found))
        taken.append([_value(name, element) for element in found])
    return taken


def _elements(column: Any, separator: str) -> list[Any]:
    if not isinstance(column, str):
        return list(column)
    if column.startswith("{"):
        return column[1:-1].split(",") if column != "{}" else []
    return column.split(separator) if column else []


def _value(name: str, element: Any) -> Any:
    """Return an element as its column keeps it; a missing one is 0, false or empty."""
    if name in _FLAGS:
        return element == "t"
    if name.endswith(("_minor", "version", "_seconds")):
        return int(element or 0)
    if name in ("reason", "redirected_to"):
        return element or None
    if name == "value_on":
        return date.fromisoformat(element) if element else None
    return element if name == "reason_metadata" else element or ""


@BOOK.model
def write_movement(
    rows: Rows, book: int, now: datetime, business_date: date, *values: Any
) -> list[Row]:
    order, sums = values[: len(_MOVED)], values[len(_MOVED) :]
    moved = dict(zip(_MOVED, order, strict=True))
    constants = {"book": book, "booked_at": now, "business_date": business_date}
    kept = rows["transfers"].insert_new({**constants, **moved, **_BOOKED})
    lines = (
        (True, moved["debit_version"], sums[:5]),
        (False, moved["credit_version"], sums[5:]),
    )
    for is_debit, version, (account_id, debits, credited, debits_held, credits_held) in lines:
        rows["entries"].insert(
            {
                **constants,
                "account_id": account_id,
                "version": version,
                "transfer_id": moved["id"],
                "is_debit": is_debit,
                "amount_minor": moved["booked_minor"],
                "debits_posted_minor": debits,
                "credits_posted_minor": credited,
            }
        )
        account = rows["accounts"].get(book, account_id)
        if account is not None:
            rows["accounts"].update(
                account,
                debits_posted_minor=debits,
                credits_posted_minor=credited,
                debits_pending_minor=debits_held,
                credits_pending_minor=credits_held,
                version=version,
                updated_at=now,
            )
    return [_COUNT.row({"count": 0 if kept is None else 1})]


@BOOK.model
def append_credits(
    rows: Rows, book: int, now: datetime, business_date: date, *columns: list[Any]
) -> None:
    for credit in by_row("account_id transfer_id amount_minor", columns):
        place = rows.next_number("buffered_credits")
        rows["buffered_credits"].insert(
            {
                "book": book,
                "booked_at": now,
                "business_date": business_date,
                "place": place,
                **credit,
            }
        )


@BOOK.model
def write_holds(rows: Rows, book: int, now: datetime, *columns: list[Any]) -> None:
    opened, lessened, ended, resolved = columns[:9], columns[9:12], columns[12], columns[13:]
    holds = rows["holds"]
    holds.insert_columns(" ".join(HOLD.columns), opened, book=book)
    for change in by_row("id held_minor posted_minor", lessened):
        hold = holds.get(book, change["id"])
        if hold is not None:
            holds.update(hold, **change)
    for hold in holds.find_keys(ended, book):
        holds.delete(hold)
    rows["resolutions"].insert_columns(
        "pending_id fate resolved_by posted_minor", resolved, book=book, resolved_at=now
    )


@BOOK.model
def list_due_holds(rows: Rows, book: int, limit: int) -> list[Row]:
    due = [
        row
        for row in rows["holds"].find(book=book)
        if row["expires_at"] is not None and row["expires_at"] <= rows.now()
    ]
    return HOLD.rows(sorted(due, key=lambda row: row["expires_at"])[:limit])
