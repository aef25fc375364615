"""Questions to the books: entries, the journal, the trial balance, what does not fit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import date
from typing import Final

from tests.model_stores.account_tables import BOOK, TRANSFER
from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows, StatementBook

STATEMENTS: Final = StatementBook(
    "services.account",
    "statement_queries.sql",
    not_modelled={"*": "finds by a few look-ups what PostgreSQL's tests compare with plain sums"},
)

_LINE: Final = Shape(
    "account_id version transfer_id is_debit amount_minor debits_posted_minor credits_posted_minor"
    " business_date booked_at appended_at counter_account_id movement reference_id value_on"
)
_SUMS: Final = Shape(
    "currency_code kind normal_side accounts debits_posted credits_posted debits_pending"
    " credits_pending credits_buffered"
)
_ENTERED: Final = Shape("id debits_posted_minor credits_posted_minor entry_debits entry_credits")
_HELD: Final = Shape("id debits_pending_minor credits_pending_minor held_debits held_credits")
_UNBALANCED: Final = Shape("tenant_id mode currency_code posted_difference pending_difference")
_LINES: Final = Shape("id booked_minor lines entered")
_STRAY: Final = Shape("id waiting")
_BOOKS: Final = Shape("accounts entries")


@STATEMENTS.model
def list_entries(
    rows: Rows,
    book: int,
    account_id: str,
    after_version: int,
    last_version: int,
    from_on: date,
    to_on: date,
    limit: int,
) -> list[Row]:
    entries = [
        row
        for row in rows["entries"].find(book=book, account_id=account_id)
        if after_version < row["version"] <= last_version
        and from_on <= row["business_date"] <= to_on
    ]
    lines = []
    for entry in sorted(entries, key=lambda row: row["version"])[:limit]:
        transfer = rows["transfers"].get(book, entry["transfer_id"])
        if transfer is not None:
            credited = transfer["redirected_to"] or transfer["credit_account_id"]
            counter = credited if entry["is_debit"] else transfer["debit_account_id"]
            lines.append(_LINE.row({**transfer, **entry, "counter_account_id": counter}))
    return lines


@BOOK.model
def list_transfers_by_id(rows: Rows, book: int, after_id: str, limit: int) -> list[Row]:
    found = [row for row in rows["transfers"].find(book=book) if row["id"] > after_id]
    return TRANSFER.rows(sorted(found, key=lambda row: row["id"])[:limit])


@BOOK.model
def sum_accounts(rows: Rows, tenant_id: str, mode: str) -> list[Row]:
    groups: dict[tuple[str, str, str], list[Values]] = defaultdict(list)
    for row in rows["accounts"].find(tenant_id=tenant_id, mode=mode):
        groups[row["currency_code"], row["kind"], row["normal_side"]].append(row)
    waiting = _waiting(rows)
    return [
        _SUMS.row(
            {
                "currency_code": currency_code,
                "kind": kind,
                "normal_side": normal_side,
                "accounts": len(accounts),
                "debits_posted": _sum(accounts, "debits_posted_minor"),
                "credits_posted": _sum(accounts, "credits_posted_minor"),
                "debits_pending": _sum(accounts, "debits_pending_minor"),
                "credits_pending": _sum(accounts, "credits_pending_minor"),
                "credits_buffered": sum(waiting[row["book"], row["id"]] for row in accounts),
            }
        )
        for (currency_code, kind, normal_side), accounts in sorted(groups.items())
    ]


# What does not fit. Empty in books that are right.


@BOOK.model
def find_entry_differences(rows: Rows, limit: int) -> list[Row]:
    entered: dict[tuple[int, str, bool], int] = defaultdict(int)
    for entry in rows["entries"].rows():
        entered[entry["book"], entry["account_id"], entry["is_debit"]] += entry["amount_minor"]
    found = []
    for account in _by_id(rows["accounts"].rows()):
        debits = entered[account["book"], account["id"], True]
        credited = entered[account["book"], account["id"], False]
        if (account["debits_posted_minor"], account["credits_posted_minor"]) != (debits, credited):
            found.append(_ENTERED.row(account, entry_debits=debits, entry_credits=credited))
    return found[:limit]


@BOOK.model
def find_running_differences(rows: Rows, limit: int) -> list[Row]:
    last: dict[tuple[int, str], Values] = {}
    for entry in rows["entries"].rows():
        place = entry["book"], entry["account_id"]
        if place not in last or last[place]["version"] < entry["version"]:
            last[place] = entry
    found = []
    for account in _by_id(rows["accounts"].rows()):
        line = last.get((account["book"], account["id"]))
        if line is not None and any(
            account[name] != line[name] for name in ("debits_posted_minor", "credits_posted_minor")
        ):
            found.append(
                _ENTERED.row(
                    account,
                    entry_debits=line["debits_posted_minor"],
                    entry_credits=line["credits_posted_minor"],
                )
            )
    return found[:limit]


@BOOK.model
def find_hold_differences(rows: Rows, limit: int) -> list[Row]:
    debits: dict[tuple[int, str], int] = defaultdict(int)
    credited: dict[tuple[int, str], int] = defaultdict(int)
    for hold in rows["holds"].rows():
        debits[hold["book"], hold["debit_account_id"]] += hold["held_minor"]
        credited[hold["book"], hold["credit_account_id"]] += hold["held_minor"]
    found = []
    for account in _by_id(rows["accounts"].rows()):
        place = account["book"], account["id"]
        held = debits[place], credited[place]
        if (account["debits_pending_minor"], account["credits_pending_minor"]) != held:
            found.append(_HELD.row(account, held_debits=held[0], held_credits=held[1]))
    return found[:limit]


@BOOK.model
def find_unbalanced(rows: Rows, limit: int) -> list[Row]:
    posted: dict[tuple[str, str, str], int] = defaultdict(int)
    pending: dict[tuple[str, str, str], int] = defaultdict(int)
    waiting = _waiting(rows)
    for row in rows["accounts"].rows():
        world = row["tenant_id"], row["mode"], row["currency_code"]
        posted[world] += row["debits_posted_minor"] - row["credits_posted_minor"]
        posted[world] -= waiting[row["book"], row["id"]]
        pending[world] += row["debits_pending_minor"] - row["credits_pending_minor"]
    found = [
        _UNBALANCED.row(
            {
                "tenant_id": world[0],
                "mode": world[1],
                "currency_code": world[2],
                "posted_difference": posted[world],
                "pending_difference": pending[world],
            }
        )
        for world in sorted(posted)
        if posted[world] or pending[world]
    ]
    return found[:limit]


@BOOK.model
def find_transfer_differences(rows: Rows, limit: int) -> list[Row]:
    lines: dict[tuple[int, str], list[int]] = defaultdict(list)
    for entry in (*rows["entries"].rows(), *rows["buffered_credits"].rows()):
        lines[entry["book"], entry["transfer_id"]].append(entry["amount_minor"])
    found = []
    for row in _by_id(rows["transfers"].rows()):
        if row["status"] != "BOOKED" or row["kind"] not in ("SINGLE", "POST"):
            continue
        amounts = lines[row["book"], row["id"]]
        if len(amounts) != 2 or sum(amounts) != 2 * row["booked_minor"]:
            found.append(_LINES.row(row, lines=len(amounts), entered=sum(amounts)))
    return found[:limit]


@BOOK.model
def find_stray_buffers(rows: Rows, limit: int) -> list[Row]:
    found = []
    for (book, account_id), amount in sorted(_waiting(rows).items(), key=lambda one: one[0][1]):
        account = rows["accounts"].get(book, account_id)
        if account is not None and not account["is_buffered"]:
            found.append(_STRAY.row({"id": account_id, "waiting": amount}))
    return found[:limit]


def _waiting(rows: Rows) -> dict[tuple[int, str], int]:
    """What waits in buffers, by book and account."""
    waiting: dict[tuple[int, str], int] = defaultdict(int)
    for row in rows["buffered_credits"].rows():
        waiting[row["book"], row["account_id"]] += row["amount_minor"]
    return waiting


@BOOK.model
def count_books(rows: Rows) -> list[Row]:
    counts = {"accounts": len(rows["accounts"].rows()), "entries": len(rows["entries"].rows())}
    return [_BOOKS.row(counts)]


def _by_id(many: Iterable[Values]) -> list[Values]:
    return sorted(many, key=lambda row: str(row["id"]))


def _sum(many: Iterable[Values], name: str) -> int:
    return sum(row[name] for row in many)
