"""What Alipay remembers and decides: trades, refunds, and the notices that tell of them.

Functions of the open connection, each a piece of work for `Store.run`. Unlike the real gateway,
which makes the trade when somebody scans the code, the trade exists from precreation on, so that
it can be asked about and closed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from common.money import Money
from services.sandbox.alipay.notifications import tell_of_cancel, tell_of_payment, tell_of_refund
from services.sandbox.alipay.records import (
    CLOSED,
    DECLINED,
    PAID,
    REFUND_REFUSED,
    SHANGHAI,
    WAITING,
    NewTrade,
    Refund,
    RefusedError,
    Trade,
)
from services.sandbox.faults.fate import Fate
from services.sandbox.faults.plan import ALIPAY as PARTY
from services.sandbox.faults.plan import FaultKind
from services.sandbox.movements import MovementKind, write_movement

_SELECT: Final = (
    "SELECT trade_number, app_id, out_trade_no, trade_no, qr_code, subject, amount_minor,"
    " currency_code, state, notify_url, expires_at, created_at, paid_at, refunded_minor,"
    " asked_minor, declined_code FROM alipay_trades"
)


def _trade(row: sqlite3.Row) -> Trade:
    return Trade(
        trade_number=row["trade_number"],
        app_id=row["app_id"],
        out_trade_no=row["out_trade_no"],
        trade_no=row["trade_no"],
        qr_code=row["qr_code"],
        subject=row["subject"],
        money=Money(row["currency_code"], row["amount_minor"]),
        state=row["state"],
        notify_url=row["notify_url"],
        expires_at=row["expires_at"],
        created_at=row["created_at"],
        paid_at=row["paid_at"],
        refunded_minor=row["refunded_minor"],
        asked_minor=row["asked_minor"],
        declined_code=row["declined_code"],
    )


def _aged(db: sqlite3.Connection, trade: Trade, now: datetime) -> Trade:
    """Close a trade whose time to pay has passed."""
    expired = trade.expires_at is not None and trade.expires_at <= now.timestamp()
    return _moved(db, trade, CLOSED) if expired and trade.state == WAITING else trade


def _moved(db: sqlite3.Connection, trade: Trade, state: str, paid_at: float | None = None) -> Trade:
    paid_at = trade.paid_at if paid_at is None else paid_at
    db.execute(
        "UPDATE alipay_trades SET state = ?, paid_at = ? WHERE trade_number = ?",
        (state, paid_at, trade.trade_number),
    )
    return replace(trade, state=state, paid_at=paid_at)


def find_trade(
    db: sqlite3.Connection, app_id: str, out_trade_no: str, now: datetime
) -> Trade | None:
    """Return a merchant's trade, or None."""
    row = db.execute(
        _SELECT + " WHERE app_id = ? AND out_trade_no = ?", (app_id, out_trade_no)
    ).fetchone()
    return None if row is None else _aged(db, _trade(row), now)


def existing_trade(db: sqlite3.Connection, app_id: str, out_trade_no: str, now: datetime) -> Trade:
    """Return a merchant's trade; raises RefusedError when there is none."""
    trade = find_trade(db, app_id, out_trade_no, now)
    if trade is None:
        raise RefusedError("ACQ.TRADE_NOT_EXIST")
    return trade


def amount_of(
    db: sqlite3.Connection, app_id: str, out_trade_no: str, out_request_no: str | None = None
) -> int:
    """Return the amount of a trade or of one refund of it, in minor units; 0 for an unknown one."""
    if out_request_no is None:
        row = db.execute(
            "SELECT amount_minor FROM alipay_trades WHERE app_id = ? AND out_trade_no = ?",
            (app_id, out_trade_no),
        ).fetchone()
    else:
        row = db.execute(
            "SELECT alipay_refunds.amount_minor FROM alipay_refunds JOIN alipay_trades"
            " USING (trade_number) WHERE app_id = ? AND out_trade_no = ? AND out_request_no = ?",
            (app_id, out_trade_no, out_request_no),
        ).fetchone()
    return 0 if row is None else int(row["amount_minor"])


def precreate(fate: Fate, new: NewTrade, now: datetime) -> Trade:
    """Make a trade, or return the one that an equal request made before.

    One with a `declined_code` was refused, and stays refused.
    """
    db = fate.db
    trade = find_trade(db, new.app_id, new.out_trade_no, now)
    if trade is not None:
        if trade.asked != new.money:
            raise RefusedError("ACQ.CONTEXT_INCONSISTENT")
        if trade.declined_code:
            return trade
        if trade.state != WAITING:
            paid = trade.paid_at is not None
            raise RefusedError("ACQ.TRADE_HAS_SUCCESS" if paid else "ACQ.TRADE_HAS_CLOSE")
        return trade
    (number,) = db.execute(
        "SELECT coalesce(max(trade_number), 0) + 1 FROM alipay_trades"
    ).fetchone()
    day = now.astimezone(SHANGHAI).strftime("%Y%m%d")
    is_declined = fate.draw(FaultKind.DECLINE) is not None
    db.execute(
        "INSERT INTO alipay_trades (trade_number, app_id, out_trade_no, trade_no, qr_code, subject,"
        " amount_minor, currency_code, state, notify_url, expires_at, created_at, declined_code)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            new.app_id,
            new.out_trade_no,
            f"{day}22001{number:015d}",
            new.qr_code,
            new.subject,
            new.money.amount_minor,
            new.money.currency_code,
            CLOSED if is_declined else WAITING,
            new.notify_url,
            new.expires_at,
            now.timestamp(),
            DECLINED if is_declined else "",
        ),
    )
    return existing_trade(db, new.app_id, new.out_trade_no, now)


def close(db: sqlite3.Connection, app_id: str, out_trade_no: str, now: datetime) -> Trade:
    """Close a trade that nobody has paid."""
    trade = existing_trade(db, app_id, out_trade_no, now)
    if trade.state != WAITING:
        raise RefusedError("ACQ.TRADE_STATUS_ERROR")
    return _moved(db, trade, CLOSED)


def find_scanned(db: sqlite3.Connection, qr_code: str) -> Trade | None:
    """Return the trade of a code, or None."""
    row = db.execute(_SELECT + " WHERE qr_code = ?", (qr_code,)).fetchone()
    return None if row is None else _trade(row)


def play_payer(fate: Fate, qr_code: str, *, pays: bool, now: datetime) -> Trade:
    """Let the person who scanned the code pay or cancel; a repeat changes nothing.

    Raises RefusedError when the code is unknown or the trade ended the other way.
    """
    db = fate.db
    trade = find_scanned(db, qr_code)
    if trade is None:
        raise RefusedError("ACQ.TRADE_NOT_EXIST")
    trade = _aged(db, trade, now)
    if trade.state != WAITING:
        if pays != (trade.paid_at is not None):
            raise RefusedError("ACQ.TRADE_HAS_CLOSE" if pays else "ACQ.TRADE_HAS_SUCCESS")
        return trade
    if not pays:
        trade = _moved(db, trade, CLOSED)
        tell_of_cancel(fate, trade, now)
        return trade
    trade = _moved(db, _taken(fate, trade), PAID, paid_at=now.timestamp())
    write_movement(
        db,
        party=PARTY,
        merchant_number=trade.app_id,
        reference=trade.out_trade_no,
        channel_transaction_no=trade.trade_no,
        kind=MovementKind.PAYMENT,
        money=trade.money,
        at=now,
    )
    tell_of_payment(fate, trade, now)
    return trade


def _taken(fate: Fate, trade: Trade) -> Trade:
    """Return the trade with the amount that is really taken from the payer."""
    rule = fate.draw(FaultKind.WRONG_AMOUNT)
    if rule is None:
        return trade
    asked = trade.money
    taken = Money(asked.currency_code, fate.other_amount(rule, asked.amount_minor))
    fate.db.execute(
        "UPDATE alipay_trades SET amount_minor = ?, asked_minor = ? WHERE trade_number = ?",
        (taken.amount_minor, asked.amount_minor, trade.trade_number),
    )
    return replace(trade, money=taken, asked_minor=asked.amount_minor)


def find_refund(db: sqlite3.Connection, trade: Trade, out_request_no: str) -> Refund | None:
    """Return one refund of a trade, or None."""
    row = db.execute(
        "SELECT out_request_no, amount_minor, refunded_at FROM alipay_refunds"
        " WHERE trade_number = ? AND out_request_no = ?",
        (trade.trade_number, out_request_no),
    ).fetchone()
    if row is None:
        return None
    money = Money(trade.money.currency_code, row["amount_minor"])
    return Refund(out_request_no=row["out_request_no"], money=money, refunded_at=row["refunded_at"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """How a request for a refund ended."""

    trade: Trade
    refund: Refund
    changed: bool
    """Whether this request moved the money, and not an equal one before."""


def refund(
    fate: Fate,
    app_id: str,
    out_trade_no: str,
    out_request_no: str,
    money: Money,
    now: datetime,
) -> Refunded | RefusedError:
    """Give back all or part of a trade, once per `out_request_no`.

    Raises RefusedError for what cannot be. A refusal on demand is returned, not raised: it is
    remembered, so that a repeat is refused, too.
    """
    db = fate.db
    trade = existing_trade(db, app_id, out_trade_no, now)
    before = find_refund(db, trade, out_request_no)
    if before is not None:
        if before.money != money:
            raise RefusedError("ACQ.DISCORDANT_REPEAT_REQUEST")
        return Refunded(trade=trade, refund=before, changed=False)
    refused = db.execute(
        "SELECT sub_code FROM alipay_refund_refusals WHERE trade_number = ? AND out_request_no = ?",
        (trade.trade_number, out_request_no),
    ).fetchone()
    if refused is not None:
        raise RefusedError(refused["sub_code"])
    if trade.paid_at is None:
        raise RefusedError("ACQ.TRADE_STATUS_ERROR")
    if money.currency_code != trade.money.currency_code:
        raise RefusedError("ACQ.INVALID_PARAMETER")
    refunded_minor = trade.refunded_minor + money.amount_minor
    if refunded_minor > trade.money.amount_minor:
        raise RefusedError("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
    if fate.draw(FaultKind.REFUND_REFUSED):
        db.execute(
            "INSERT INTO alipay_refund_refusals (trade_number, out_request_no, sub_code)"
            " VALUES (?, ?, ?)",
            (trade.trade_number, out_request_no, REFUND_REFUSED),
        )
        return RefusedError(REFUND_REFUSED)
    done = Refund(out_request_no=out_request_no, money=money, refunded_at=now.timestamp())
    db.execute(
        "INSERT INTO alipay_refunds (trade_number, out_request_no, amount_minor, refunded_at)"
        " VALUES (?, ?, ?, ?)",
        (trade.trade_number, out_request_no, money.amount_minor, done.refunded_at),
    )
    state = CLOSED if refunded_minor == trade.money.amount_minor else trade.state
    db.execute(
        "UPDATE alipay_trades SET state = ?, refunded_minor = ? WHERE trade_number = ?",
        (state, refunded_minor, trade.trade_number),
    )
    trade = replace(trade, state=state, refunded_minor=refunded_minor)
    write_movement(
        db,
        party=PARTY,
        merchant_number=app_id,
        reference=out_request_no,
        payment_reference=out_trade_no,
        channel_transaction_no=trade.trade_no,
        kind=MovementKind.REFUND,
        money=money,
        at=now,
    )
    tell_of_refund(fate, trade, done, now)
    return Refunded(trade=trade, refund=done, changed=True)
