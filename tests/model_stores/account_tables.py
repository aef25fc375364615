"""The ledger's tables (`services/account/migrations`), and the rows that statements answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.model_stores.rows import Shape, Values
from tests.model_stores.statements import StatementBook
from tests.model_stores.tables import TableSpec, Unique, spec

BOOK: Final = StatementBook(
    "services.account", not_modelled={"*story*": "stories are read by people, not by flows"}
)

DAYS: Final = StatementBook(
    "services.account",
    "day_queries.sql",
    not_modelled={"*": "days are cut, closed and proved in PostgreSQL's tests"},
)

_STATE: Final = (
    "id tenant_id mode currency_code normal_side status may_go_negative credit_limit_minor"
    " court_frozen_minor debits_posted_minor credits_posted_minor debits_pending_minor"
    " credits_pending_minor version is_buffered"
)
_REST: Final = "owner_id merchant_id kind created_at updated_at"
ACCOUNT_STATE: Final = Shape(_STATE)
LOCKED_ACCOUNT: Final = Shape(f"{_STATE} {_REST}")
ACCOUNT: Final = Shape(f"{_STATE} {_REST} buffered_minor")
HOLD: Final = Shape(
    "id tenant_id mode debit_account_id credit_account_id currency_code held_minor posted_minor"
    " expires_at"
)
NEW_TRANSFER: Final = (
    "id kind debit_account_id credit_account_id currency_code amount_minor pending_id keep_rest"
    " timeout_seconds linked forced balancing_debit balancing_credit movement reference_id value_on"
    " biz_trace_id tenant_id mode merchant_id actor status reason reason_metadata booked_minor"
    " redirected_to debit_version credit_version is_buffered"
)
TRANSFER: Final = Shape(
    "id kind debit_account_id credit_account_id currency_code amount_minor pending_id keep_rest"
    " timeout_seconds linked forced balancing_debit balancing_credit movement reference_id value_on"
    " biz_trace_id tenant_id mode merchant_id actor status reason reason_metadata booked_minor"
    " business_date booked_at redirected_to debit_version credit_version is_buffered"
)
NEW_ENTRY: Final = (
    "account_id version transfer_id is_debit amount_minor debits_posted_minor credits_posted_minor"
)

_KINDS: Final = ("SINGLE", "PENDING", "POST", "VOID", "EXPIRE")
_STATUSES: Final = ("NORMAL", "DEBIT_FROZEN", "CREDIT_FROZEN", "CLOSED")
_FATES: Final = ("POSTED", "PART_POSTED", "VOIDED", "EXPIRED")
_NEVER_NEGATIVE: Final = (
    "debits_posted_minor",
    "credits_posted_minor",
    "debits_pending_minor",
    "credits_pending_minor",
    "credit_limit_minor",
    "court_frozen_minor",
)


def _is_never_negative(name: str) -> Callable[[Values], bool]:
    return lambda row: bool(row[name] >= 0)


def _reason_fits(row: Values) -> bool:
    return bool((row["status"] == "REFUSED") == (row["reason"] is not None))


def _booked_fits(row: Values) -> bool:
    return bool(row["status"] == "REFUSED" or row["booked_minor"] > 0 or row["kind"] == "VOID")


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "accounts",
        "book version debits_posted_minor credits_posted_minor debits_pending_minor"
        " credits_pending_minor credit_limit_minor court_frozen_minor created_at updated_at"
        " may_go_negative id tenant_id mode owner_id merchant_id kind currency_code normal_side"
        " status is_buffered",
        "book id",
        defaults={
            "is_buffered": False,
            "debits_posted_minor": 0,
            "credits_posted_minor": 0,
            "debits_pending_minor": 0,
            "credits_pending_minor": 0,
            "court_frozen_minor": 0,
        },
        checks={
            **{f"accounts_{name}_check": _is_never_negative(name) for name in _NEVER_NEGATIVE},
            "accounts_normal_side_check": lambda row: row["normal_side"] in ("DEBIT", "CREDIT"),
            "accounts_status_check": lambda row: row["status"] in _STATUSES,
        },
    ),
    spec(
        "account_changes",
        "book account_id request_id version changed_at verb before after actor reason biz_trace_id",
        "book account_id request_id",
        unique=(Unique(("book", "account_id", "version")),),
    ),
    spec(
        "transfers",
        f"book booked_at business_date {NEW_TRANSFER}",
        "book id",
        nullable="value_on redirected_to reason reason_metadata",
        not_modelled="written_in",
        checks={
            "transfers_kind_check": lambda row: row["kind"] in _KINDS,
            "transfers_status_check": lambda row: row["status"] in ("BOOKED", "REFUSED"),
            "transfers_check": _reason_fits,
            "transfers_check1": _booked_fits,
        },
    ),
    spec(
        "holds",
        "book held_minor posted_minor expires_at id tenant_id mode debit_account_id"
        " credit_account_id currency_code",
        "book id",
        nullable="expires_at",
        checks={
            "holds_held_minor_check": lambda row: row["held_minor"] > 0,
            "holds_posted_minor_check": lambda row: row["posted_minor"] >= 0,
        },
    ),
    spec(
        "resolutions",
        "book posted_minor resolved_at pending_id fate resolved_by",
        "book pending_id",
        checks={"resolutions_fate_check": lambda row: row["fate"] in _FATES},
    ),
    spec(
        "entries",
        f"book business_date booked_at appended_at {NEW_ENTRY}",
        "book account_id version transfer_id",
        nullable="appended_at",
        defaults={"appended_at": None},
        checks={"entries_amount_minor_check": lambda row: row["amount_minor"] > 0},
    ),
    spec(
        "buffered_credits",
        "book business_date place amount_minor booked_at account_id transfer_id",
        "book account_id transfer_id",
        checks={"buffered_credits_amount_minor_check": lambda row: row["amount_minor"] > 0},
    ),
    spec("business_dates", "book business_date advanced_at actor", "book"),
    spec(
        "business_date_changes",
        "book business_date previous_date advanced_at actor",
        "book business_date",
        nullable="previous_date",
    ),
)
