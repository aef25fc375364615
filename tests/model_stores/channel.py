"""The rows and statements of `channel` (`services/channel/queries.sql`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.model_stores.rows import Row, Shape, Values, kept
from tests.model_stores.statements import Rows, StatementBook
from tests.model_stores.tables import TableSpec, by_row, spec

BOOK: Final = StatementBook("services.channel")
BOOKS: Final[tuple[StatementBook, ...]] = (BOOK,)

_CHARGE: Final = (
    "reference tenant_id mode merchant_id actor biz_trace_id channel payment_id product card_id"
    " subject currency_code amount_minor expires_at state received_currency_code received_minor"
    " channel_transaction_no qr_content redirect_url refusal_reason decline_code raw_code"
    " raw_message remedy blame paid_at version created_at updated_at"
)
_CHARGE_CHANGE: Final = (
    "reference state received_currency_code received_minor channel_transaction_no qr_content"
    " redirect_url refusal_reason decline_code raw_code raw_message remedy blame paid_at version"
    " updated_at"
)
_REFUND: Final = (
    "reference charge_reference tenant_id mode merchant_id actor biz_trace_id channel subject_id"
    " currency_code amount_minor words state channel_transaction_no refusal_reason decline_code"
    " raw_code raw_message remedy blame version created_at updated_at"
)
_REFUND_CHANGE: Final = (
    "reference state channel_transaction_no refusal_reason decline_code raw_code raw_message"
    " remedy blame version updated_at"
)
_CALLBACK: Final = (
    "channel notice_id callback_id kind reference told_state told_currency_code told_minor"
    " raw_code verdict body_digest biz_trace_id received_at told_transaction_no"
    " told_payment_reference told_requested_at"
)
_CHANNEL: Final = (
    "code adapter products currency_codes amount_min_minor amount_max_minor request_life_seconds"
    " timeout_seconds suspended config credentials"
)


def _has_what_it_received(row: Values) -> bool:
    is_settled = row["state"] in ("SUCCEEDED", "CONFLICTED")
    return bool(is_settled == (row["received_minor"] is not None))


def _succeeds_with_the_amount(row: Values) -> bool:
    received = row["received_currency_code"], row["received_minor"]
    return bool(
        row["state"] != "SUCCEEDED" or received == (row["currency_code"], row["amount_minor"])
    )


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "channels",
        f"{_CHANNEL} version updated_at",
        "code",
        checks={
            "channels_version_check": lambda row: row["version"] > 0,
            "channels_amount_min_minor_check": lambda row: row["amount_min_minor"] > 0,
            "channels_check": lambda row: row["amount_max_minor"] >= row["amount_min_minor"],
            "channels_request_life_seconds_check": lambda row: row["request_life_seconds"] > 0,
            "channels_timeout_seconds_check": lambda row: row["timeout_seconds"] > 0,
        },
    ),
    spec(
        "charges",
        _CHARGE,
        "reference",
        nullable="expires_at received_currency_code received_minor paid_at",
        checks={
            "charges_amount_minor_check": lambda row: row["amount_minor"] > 0,
            "charges_received_minor_check": lambda row: (row["received_minor"] or 0) >= 0,
            "charges_version_check": lambda row: row["version"] > 0,
            "charges_settled_with_what_was_received": _has_what_it_received,
            "charges_succeed_with_the_amount_asked": _succeeds_with_the_amount,
        },
    ),
    spec(
        "channel_refunds",
        _REFUND,
        "reference",
        checks={
            "channel_refunds_amount_minor_check": lambda row: row["amount_minor"] > 0,
            "channel_refunds_version_check": lambda row: row["version"] > 0,
        },
    ),
    spec(
        "callbacks",
        _CALLBACK,
        "channel notice_id",
        nullable="told_currency_code told_minor told_requested_at",
        defaults={"told_transaction_no": "", "told_payment_reference": ""},
        append_only=True,
    ),
)

_REFERENCE: Final = Shape("reference")
_CHARGE_ROW: Final = Shape(_CHARGE)
_REFUND_ROW: Final = Shape(_REFUND)
_SUM: Final = Shape("charge_reference amount_minor")
_NOTICE: Final = Shape("channel notice_id")
_CALLBACK_ID: Final = Shape("callback_id")
_KEPT_CALLBACK: Final = Shape(
    "channel callback_id kind reference verdict told_state told_currency_code told_minor"
    " told_transaction_no told_payment_reference told_requested_at received_at"
)
_CHANNEL_ROW: Final = Shape(f"{_CHANNEL} version")
_CHARGE_FACT: Final = Shape(
    "reference channel state currency_code amount_minor payment_id channel_transaction_no"
    " received_minor"
)
_REFUND_FACT: Final = Shape(
    "reference channel state currency_code amount_minor charge_reference subject_id"
)
_UNFINISHED: Final = Shape("key noun state")


# Charges.


@BOOK.model
def insert_charges(rows: Rows, *columns: list[Any]) -> list[Row]:
    return _REFERENCE.rows(rows["charges"].insert_new_columns(_CHARGE, columns))


@BOOK.model
def find_charges(rows: Rows, references: list[str]) -> list[Row]:
    return _CHARGE_ROW.rows(rows["charges"].find_keys(references))


@BOOK.model
def lock_charges(rows: Rows, references: list[str]) -> list[Row]:
    return find_charges(rows, references)


@BOOK.model
def update_charges(rows: Rows, *columns: list[Any]) -> None:
    _update(rows, "charges", by_row(_CHARGE_CHANGE, columns))


def _update(rows: Rows, table: str, changes: Iterable[Values]) -> None:
    for change in changes:
        row = rows[table].get(change["reference"])
        if row is not None:
            rows[table].update(row, **change)


# Refunds.


@BOOK.model
def insert_refunds(rows: Rows, *columns: list[Any]) -> list[Row]:
    return _REFERENCE.rows(rows["channel_refunds"].insert_new_columns(_REFUND, columns))


@BOOK.model
def find_refunds(rows: Rows, references: list[str]) -> list[Row]:
    return _REFUND_ROW.rows(rows["channel_refunds"].find_keys(references))


@BOOK.model
def lock_refunds(rows: Rows, references: list[str]) -> list[Row]:
    return find_refunds(rows, references)


@BOOK.model
def update_refunds(rows: Rows, *columns: list[Any]) -> None:
    _update(rows, "channel_refunds", by_row(_REFUND_CHANGE, columns))


@BOOK.model
def sum_refunds(rows: Rows, references: list[str]) -> list[Row]:
    sums: dict[str, int] = {}
    for row in rows["channel_refunds"].rows():
        reference = row["charge_reference"]
        if reference in references and row["state"] not in ("FAILED", "NOT_SENT"):
            sums[reference] = sums.get(reference, 0) + row["amount_minor"]
    return [
        _SUM.row({"charge_reference": reference, "amount_minor": amount})
        for reference, amount in sorted(sums.items())
    ]


# Callbacks.


@BOOK.model
def find_callbacks(rows: Rows, channels: list[str], notice_ids: list[str]) -> list[Row]:
    asked = zip(channels, notice_ids, strict=True)
    found = [rows["callbacks"].get(channel, notice_id) for channel, notice_id in asked]
    return _NOTICE.rows(row for row in found if row is not None)


@BOOK.model
def insert_callbacks(rows: Rows, *columns: list[Any]) -> list[Row]:
    return _CALLBACK_ID.rows(rows["callbacks"].insert_new_columns(_CALLBACK, columns))


@BOOK.model
def find_kept_callback(rows: Rows, callback_id: str) -> list[Row]:
    return _KEPT_CALLBACK.rows(
        row
        for row in rows["callbacks"].find(callback_id=callback_id)
        if row["verdict"] in ("ORPHAN", "CONTRADICTED", "DOUBTED")
    )


# Channels.


@BOOK.model
def put_channel(rows: Rows, *values: Any) -> None:
    *given, at = values
    channel = {name: kept(value) for name, value in zip(_CHANNEL.split(), given, strict=True)}
    known = rows["channels"].get(channel["code"])
    if known is None:
        rows["channels"].insert({**channel, "version": 1, "updated_at": at})
    elif any(known[name] != value for name, value in channel.items()):
        rows["channels"].update(known, **channel, version=known["version"] + 1, updated_at=at)


@BOOK.model
def list_channels(rows: Rows) -> list[Row]:
    return _CHANNEL_ROW.rows(sorted(rows["channels"].rows(), key=lambda row: row["code"]))


# Facts.


@BOOK.model
def list_charge_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    found = _behind(rows["charges"].rows(), after, limit)
    return [_CHARGE_FACT.row(row, received_minor=row["received_minor"] or 0) for row in found]


@BOOK.model
def list_refund_facts(rows: Rows, after: str, limit: int) -> list[Row]:
    return _REFUND_FACT.rows(_behind(rows["channel_refunds"].rows(), after, limit))


def _behind(found: Iterable[Values], after: str, limit: int) -> list[Values]:
    behind = [row for row in found if row["reference"] > after]
    return sorted(behind, key=lambda row: str(row["reference"]))[:limit]


@BOOK.model
def list_unfinished(rows: Rows, after: str, limit: int) -> list[Row]:
    found = [
        {"key": row["reference"], "noun": noun, "state": row["state"]}
        for table, noun in (("charges", "charge"), ("channel_refunds", "refund"))
        for row in rows[table].rows()
        if row["state"] in ("UNKNOWN", "PENDING")
    ]
    found += [
        {"key": row["event_id"], "noun": "event", "state": "UNPUBLISHED"}
        for row in rows["outbox"].find(published_at=None)
    ]
    behind = sorted((one for one in found if one["key"] > after), key=lambda one: one["key"])
    return _UNFINISHED.rows(behind[:limit])
