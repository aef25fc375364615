"""What UnionPay remembers and decides: charges, refunds, voids.

Functions of the open connection, each a piece of work for `Store.run`. A declined transaction is
remembered too: its order number is used up, as it is at the real one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

import iso4217

from common.money import Money
from services.sandbox.faults.fate import Fate
from services.sandbox.faults.plan import UNIONPAY as PARTY
from services.sandbox.faults.plan import FaultKind
from services.sandbox.movements import MovementKind, write_movement

SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")

CONSUME: Final = "01"
REFUND: Final = "04"
VOID: Final = "31"

APPROVED: Final = "00"
DUPLICATE: Final = "12"
PROCESSING: Final = "05"
REFUSED_BY_ISSUER: Final = "60"
INSUFFICIENT_FUNDS: Final = "64"
ORIGINAL_UNUSABLE: Final = "35"
ORIGINAL_DIFFERS: Final = "36"
ORIGINAL_RETURNED: Final = "45"

_KINDS: Final = {
    CONSUME: MovementKind.PAYMENT,
    REFUND: MovementKind.REFUND,
    VOID: MovementKind.VOID,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTransaction:
    """What a merchant asks for."""

    merchant_id: str
    order_id: str
    sent_time: str
    kind: str
    original_query_id: str = ""
    amount_minor: int
    currency_number: str
    account_masked: str = ""
    answer_code: str = APPROVED
    """For a charge: what the bank says at once."""
    response_code: str = APPROVED
    """For a charge: what the bank says in the end."""
    processing_seconds: float
    """How long the bank takes to say it, when it does not say it at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """One transaction."""

    transaction_number: int
    merchant_id: str
    order_id: str
    sent_time: str
    kind: str
    query_id: str
    original_query_id: str
    amount_minor: int
    currency_number: str
    account_masked: str
    response_code: str
    processed_at: float
    known_at: float
    returned_minor: int


_SELECT: Final = (
    "SELECT transaction_number, merchant_id, order_id, sent_time, kind, query_id,"
    " original_query_id, amount_minor, currency_number, account_masked, response_code,"
    " processed_at, known_at, returned_minor FROM unionpay_transactions"
)


@lru_cache(maxsize=256)
def currency_code(number: str) -> str | None:
    """Return the code of a currency number: USD for 840; None when there is none."""
    codes = [str(one.code) for one in iso4217.Currency if f"{one.number:03d}" == number]
    return codes[0] if codes else None


def find_transaction(db: sqlite3.Connection, merchant_id: str, order_id: str) -> Transaction | None:
    """Return a merchant's transaction, or None."""
    row = db.execute(
        _SELECT + " WHERE merchant_id = ? AND order_id = ?", (merchant_id, order_id)
    ).fetchone()
    return None if row is None else Transaction(**dict(row))


def _original(db: sqlite3.Connection, merchant_id: str, query_id: str) -> Transaction | None:
    row = db.execute(
        _SELECT + " WHERE query_id = ? AND merchant_id = ? AND kind = ?",
        (query_id, merchant_id, CONSUME),
    ).fetchone()
    return None if row is None else Transaction(**dict(row))


@dataclass(frozen=True, slots=True)
class Processed:
    """How a request ended: the answer code, and the transaction when it was processed now."""

    response_code: str
    transaction: Transaction | None = None


def process(fate: Fate, new: NewTransaction, now: datetime) -> Processed:
    """Carry out a charge, refund or void, once per order number.

    A charge that is declined leaves a row. A refund or void that does not fit its original leaves
    none: it is refused as a message, and its number may be used again.
    """
    db = fate.db
    if find_transaction(db, new.merchant_id, new.order_id) is not None:
        return Processed(DUPLICATE)
    original = None
    if new.kind != CONSUME:
        original = _original(db, new.merchant_id, new.original_query_id)
        refusal = _misfit(original, new, now)
        if original is None or refusal:
            return Processed(refusal)
    new = _fated(fate, new)
    if original is not None and new.response_code == APPROVED:
        db.execute(
            "UPDATE unionpay_transactions SET returned_minor = returned_minor + ?"
            " WHERE transaction_number = ?",
            (new.amount_minor, original.transaction_number),
        )
    transaction = _insert(db, new, now)
    if new.response_code == APPROVED:
        _book(db, transaction, original, now)
    return Processed(new.answer_code, transaction)


def _fated(fate: Fate, new: NewTransaction) -> NewTransaction:
    """Return the transaction as it is really carried out."""
    if new.kind == CONSUME and new.response_code == APPROVED:
        if fate.draw(FaultKind.DECLINE):
            return replace(new, answer_code=INSUFFICIENT_FUNDS, response_code=INSUFFICIENT_FUNDS)
        rule = fate.draw(FaultKind.WRONG_AMOUNT)
        if rule is not None:
            return replace(new, amount_minor=fate.other_amount(rule, new.amount_minor))
    if new.kind == REFUND and fate.draw(FaultKind.REFUND_REFUSED):
        return replace(new, answer_code=PROCESSING, response_code=REFUSED_BY_ISSUER)
    return new


def _misfit(original: Transaction | None, new: NewTransaction, now: datetime) -> str:
    """Return the answer code for a return that does not fit its original; empty when it does."""
    if (
        original is None
        or original.response_code != APPROVED
        or original.known_at > now.timestamp()
    ):
        return ORIGINAL_UNUSABLE
    if original.returned_minor == original.amount_minor:
        return ORIGINAL_RETURNED
    left_minor = original.amount_minor - original.returned_minor
    if new.kind == VOID:
        if original.returned_minor:
            return ORIGINAL_RETURNED
        fits = new.amount_minor == original.amount_minor
    else:
        fits = new.amount_minor <= left_minor
    same_currency = new.currency_number == original.currency_number
    return "" if fits and same_currency else ORIGINAL_DIFFERS


def _insert(db: sqlite3.Connection, new: NewTransaction, now: datetime) -> Transaction:
    (number,) = db.execute(
        "SELECT coalesce(max(transaction_number), 0) + 1 FROM unionpay_transactions"
    ).fetchone()
    at = now.timestamp()
    is_slow = new.answer_code != new.response_code
    transaction = Transaction(
        transaction_number=number,
        merchant_id=new.merchant_id,
        order_id=new.order_id,
        sent_time=new.sent_time,
        kind=new.kind,
        query_id=f"{new.sent_time[2:]}{number:09d}",
        original_query_id=new.original_query_id,
        amount_minor=new.amount_minor,
        currency_number=new.currency_number,
        account_masked=new.account_masked,
        response_code=new.response_code,
        processed_at=at,
        known_at=at + (new.processing_seconds if is_slow else 0.0),
        returned_minor=0,
    )
    db.execute(
        "INSERT INTO unionpay_transactions (transaction_number, merchant_id, order_id, sent_time,"
        " kind, query_id, original_query_id, amount_minor, currency_number, account_masked,"
        " response_code, processed_at, known_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            transaction.merchant_id,
            transaction.order_id,
            transaction.sent_time,
            transaction.kind,
            transaction.query_id,
            transaction.original_query_id,
            transaction.amount_minor,
            transaction.currency_number,
            transaction.account_masked,
            transaction.response_code,
            transaction.processed_at,
            transaction.known_at,
        ),
    )
    return transaction


def _book(
    db: sqlite3.Connection, transaction: Transaction, original: Transaction | None, now: datetime
) -> None:
    write_movement(
        db,
        party=PARTY,
        merchant_number=transaction.merchant_id,
        reference=transaction.order_id,
        payment_reference="" if original is None else original.order_id,
        channel_transaction_no=transaction.query_id,
        kind=_KINDS[transaction.kind],
        money=Money(currency_code(transaction.currency_number) or "", transaction.amount_minor),
        at=now,
    )


def result_fields(transaction: Transaction) -> dict[str, str]:
    """Return what UnionPay tells of a transaction that ended, in answers and notifications."""
    at = datetime.fromtimestamp(transaction.known_at, UTC).astimezone(SHANGHAI)
    return {
        "txnType": transaction.kind,
        "txnSubType": "01" if transaction.kind == CONSUME else "00",
        "orderId": transaction.order_id,
        "txnTime": transaction.sent_time,
        "txnAmt": str(transaction.amount_minor),
        "currencyCode": transaction.currency_number,
        "queryId": transaction.query_id,
        "origQryId": transaction.original_query_id,
        "accNo": transaction.account_masked,
        "settleAmt": str(transaction.amount_minor),
        "settleCurrencyCode": transaction.currency_number,
        "settleDate": at.strftime("%m%d"),
        "traceNo": f"{transaction.transaction_number % 1_000_000:06d}",
        "traceTime": at.strftime("%m%d%H%M%S"),
    }
