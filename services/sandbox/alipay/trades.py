"""What Alipay remembers and decides: trades, refunds, and the notices that tell of them.

Functions of the open connection, each a piece of work for `Store.run`. Unlike the real gateway,
which makes the trade when somebody scans the code, the trade exists from precreation on, so that
it can be asked about and closed.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from common.money import Money, format_decimal
from services.sandbox.movements import MovementKind, write_movement
from services.sandbox.notices import Notice, write_notice

PARTY: Final = "alipay"
SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")

WAITING: Final = "WAIT_BUYER_PAY"
PAID: Final = "TRADE_SUCCESS"
CLOSED: Final = "TRADE_CLOSED"


class RefusedError(Exception):
    """Alipay refuses a request; `sub_code` is its own code for why."""

    def __init__(self, sub_code: str) -> None:
        self.sub_code = sub_code
        super().__init__(sub_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One trade."""

    trade_number: int
    app_id: str
    out_trade_no: str
    trade_no: str
    qr_code: str
    subject: str
    money: Money
    state: str
    notify_url: str
    expires_at: float | None
    created_at: float
    paid_at: float | None
    refunded_minor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTrade:
    """What a merchant asks for."""

    app_id: str
    out_trade_no: str
    qr_code: str
    subject: str
    money: Money
    notify_url: str
    expires_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """One refund of a trade."""

    out_request_no: str
    money: Money
    refunded_at: float


_SELECT: Final = (
    "SELECT trade_number, app_id, out_trade_no, trade_no, qr_code, subject, amount_minor,"
    " currency_code, state, notify_url, expires_at, created_at, paid_at, refunded_minor"
    " FROM alipay_trades"
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


def _existing(db: sqlite3.Connection, app_id: str, out_trade_no: str, now: datetime) -> Trade:
    trade = find_trade(db, app_id, out_trade_no, now)
    if trade is None:
        raise RefusedError("ACQ.TRADE_NOT_EXIST")
    return trade


def precreate(db: sqlite3.Connection, new: NewTrade, now: datetime) -> Trade:
    """Make a trade, or return the one that an equal request made before."""
    trade = find_trade(db, new.app_id, new.out_trade_no, now)
    if trade is not None:
        if trade.money != new.money:
            raise RefusedError("ACQ.CONTEXT_INCONSISTENT")
        if trade.state != WAITING:
            paid = trade.paid_at is not None
            raise RefusedError("ACQ.TRADE_HAS_SUCCESS" if paid else "ACQ.TRADE_HAS_CLOSE")
        return trade
    (number,) = db.execute(
        "SELECT coalesce(max(trade_number), 0) + 1 FROM alipay_trades"
    ).fetchone()
    day = now.astimezone(SHANGHAI).strftime("%Y%m%d")
    db.execute(
        "INSERT INTO alipay_trades (trade_number, app_id, out_trade_no, trade_no, qr_code, subject,"
        " amount_minor, currency_code, state, notify_url, expires_at, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            number,
            new.app_id,
            new.out_trade_no,
            f"{day}22001{number:015d}",
            new.qr_code,
            new.subject,
            new.money.amount_minor,
            new.money.currency_code,
            WAITING,
            new.notify_url,
            new.expires_at,
            now.timestamp(),
        ),
    )
    return _existing(db, new.app_id, new.out_trade_no, now)


def close(db: sqlite3.Connection, app_id: str, out_trade_no: str, now: datetime) -> Trade:
    """Close a trade that nobody has paid."""
    trade = _existing(db, app_id, out_trade_no, now)
    if trade.state != WAITING:
        raise RefusedError("ACQ.TRADE_STATUS_ERROR")
    return _moved(db, trade, CLOSED)


def play_payer(
    db: sqlite3.Connection, qr_code: str, *, pays: bool, now: datetime
) -> tuple[Trade, Notice | None]:
    """Let the person who scanned the code pay or cancel; a repeat changes nothing.

    Raises RefusedError when the code is unknown or the trade ended the other way.
    """
    row = db.execute(_SELECT + " WHERE qr_code = ?", (qr_code,)).fetchone()
    if row is None:
        raise RefusedError("ACQ.TRADE_NOT_EXIST")
    trade = _aged(db, _trade(row), now)
    if trade.state != WAITING:
        if pays != (trade.paid_at is not None):
            raise RefusedError("ACQ.TRADE_HAS_CLOSE" if pays else "ACQ.TRADE_HAS_SUCCESS")
        return trade, None
    if not pays:
        trade = _moved(db, trade, CLOSED)
        return trade, _tell(db, trade, now, {})
    trade = _moved(db, trade, PAID, paid_at=now.timestamp())
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
    return trade, _tell(db, trade, now, {})


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
    notice: Notice | None


def refund(
    db: sqlite3.Connection,
    app_id: str,
    out_trade_no: str,
    out_request_no: str,
    money: Money,
    now: datetime,
) -> Refunded:
    """Give back all or part of a trade, once per `out_request_no`."""
    trade = _existing(db, app_id, out_trade_no, now)
    before = find_refund(db, trade, out_request_no)
    if before is not None:
        if before.money != money:
            raise RefusedError("ACQ.DISCORDANT_REPEAT_REQUEST")
        return Refunded(trade=trade, refund=before, changed=False, notice=None)
    if trade.paid_at is None:
        raise RefusedError("ACQ.TRADE_STATUS_ERROR")
    if money.currency_code != trade.money.currency_code:
        raise RefusedError("ACQ.INVALID_PARAMETER")
    refunded_minor = trade.refunded_minor + money.amount_minor
    if refunded_minor > trade.money.amount_minor:
        raise RefusedError("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL")
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
    extra = {
        "out_biz_no": out_request_no,
        "refund_fee": format_decimal(Money(money.currency_code, refunded_minor)),
        "gmt_refund": local_time(done.refunded_at) + ".000",
    }
    return Refunded(trade=trade, refund=done, changed=True, notice=_tell(db, trade, now, extra))


def local_time(at: float) -> str:
    """Return a moment as the protocol writes it."""
    return datetime.fromtimestamp(at, UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")


def _tell(
    db: sqlite3.Connection, trade: Trade, now: datetime, extra: dict[str, str]
) -> Notice | None:
    """Write the notification that a trade changed, when its merchant wants one."""
    if not trade.notify_url:
        return None
    at = now.timestamp()
    amount = format_decimal(trade.money)
    fields = {
        "notify_time": local_time(at),
        "notify_type": "trade_status_sync",
        "notify_id": f"{at:.6f}{trade.trade_number}{trade.state}{trade.refunded_minor}".replace(
            ".", ""
        ),
        "charset": "utf-8",
        "version": "1.0",
        "sign_type": "RSA2",
        "app_id": trade.app_id,
        "trade_no": trade.trade_no,
        "out_trade_no": trade.out_trade_no,
        "trade_status": trade.state,
        "subject": trade.subject,
        "total_amount": amount,
        "trans_currency": trade.money.currency_code,
        "gmt_create": local_time(trade.created_at),
        **extra,
    }
    if trade.paid_at is not None:
        fields |= {
            "receipt_amount": amount,
            "buyer_pay_amount": amount,
            "settle_amount": amount,
            "settle_currency": trade.money.currency_code,
            "gmt_payment": local_time(trade.paid_at),
        }
    return write_notice(
        db,
        party=PARTY,
        merchant_number=trade.app_id,
        url=trade.notify_url,
        fields=fields,
        next_at=at,
    )
