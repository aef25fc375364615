"""Alipay's notifications: how a trade is told of, also where the telling goes wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from common.money import Money, format_decimal
from services.sandbox.alipay.records import CLOSED, PAID, WAITING, Refund, Trade, local_time
from services.sandbox.faults.callbacks import Fields, News, owe, wrong_amount_minor
from services.sandbox.faults.fate import Fate, invented
from services.sandbox.faults.plan import ALIPAY as PARTY


def tell_of_payment(fate: Fate, trade: Trade, now: datetime) -> None:
    """Owe the notification that a trade was paid."""
    at = now.timestamp()
    right = _fields(trade, at)
    other = Money(trade.money.currency_code, wrong_amount_minor(trade.money.amount_minor))
    _tell(
        fate,
        trade,
        now,
        right=right,
        older=_fields(replace(trade, state=WAITING, paid_at=None), trade.created_at),
        denied=_fields(replace(trade, state=CLOSED, paid_at=None), at),
        wrong_amount=_differing(_fields(replace(trade, money=other), at), right),
        unknown={
            **right,
            "out_trade_no": invented(trade.out_trade_no),
            "trade_no": invented(trade.trade_no),
            "notify_id": invented(right["notify_id"]),
        },
    )


def tell_of_cancel(fate: Fate, trade: Trade, now: datetime) -> None:
    """Owe the notification that the payer does not want a trade."""
    _tell(fate, trade, now, right=_fields(trade, now.timestamp()))


def tell_of_refund(fate: Fate, trade: Trade, refund: Refund, now: datetime) -> None:
    """Owe the notification that money of a trade went back."""
    at = now.timestamp()
    total = Money(trade.money.currency_code, trade.refunded_minor)
    other = Money(total.currency_code, wrong_amount_minor(total.amount_minor))
    extra = {
        "out_biz_no": refund.out_request_no,
        "refund_fee": format_decimal(total),
        "gmt_refund": local_time(refund.refunded_at) + ".000",
    }
    right = _fields(trade, at, extra)
    _tell(
        fate,
        trade,
        now,
        right=right,
        # What was told of the payment itself.
        older=_fields(replace(trade, state=PAID, refunded_minor=0), trade.paid_at or at),
        wrong_amount=_differing({**right, "refund_fee": format_decimal(other)}, right),
    )


def _differing(fields: Fields, right: Fields) -> Fields:
    """Return a notice with a number of its own, where it tells another thing than the right one."""
    return {**fields, "notify_id": right["notify_id"] + "9"}


def _tell(
    fate: Fate,
    trade: Trade,
    now: datetime,
    *,
    right: Fields,
    older: Fields | None = None,
    denied: Fields | None = None,
    wrong_amount: Fields | None = None,
    unknown: Fields | None = None,
) -> None:
    """Write the notifications that a trade changed, when its merchant wants any."""
    if not trade.notify_url:
        return
    news = News(
        party=PARTY,
        merchant_number=trade.app_id,
        url=trade.notify_url,
        now=now.timestamp(),
        next_at=now.timestamp(),
        right=right,
        older=older,
        denied=denied,
        wrong_amount=wrong_amount,
        unknown=unknown,
    )
    owe(fate, news)


def _fields(trade: Trade, at: float, extra: Fields | None = None) -> dict[str, str]:
    """Return the notification of how a trade stood at an instant."""
    amount = format_decimal(trade.money)
    number = f"{at:.6f}{trade.trade_number}{trade.state}{trade.refunded_minor}"
    fields = {
        "notify_time": local_time(at),
        "notify_type": "trade_status_sync",
        "notify_id": number.replace(".", ""),
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
        **(extra or {}),
    }
    if trade.paid_at is not None:
        fields |= {
            "receipt_amount": amount,
            "buyer_pay_amount": amount,
            "settle_amount": amount,
            "settle_currency": trade.money.currency_code,
            "gmt_payment": local_time(trade.paid_at),
        }
    return fields
