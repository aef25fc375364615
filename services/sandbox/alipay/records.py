"""What Alipay knows of a trade and its refunds, and how it writes moments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from common.money import Money

SHANGHAI: Final = timezone(timedelta(hours=8), "Asia/Shanghai")

WAITING: Final = "WAIT_BUYER_PAY"
PAID: Final = "TRADE_SUCCESS"
CLOSED: Final = "TRADE_CLOSED"

DECLINED: Final = "ACQ.BUYER_BALANCE_NOT_ENOUGH"
REFUND_REFUSED: Final = "ACQ.TRADE_NOT_ALLOW_REFUND"


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
    asked_minor: int | None
    """What the merchant asked for, where another amount was taken."""
    declined_code: str
    """Why the trade was refused from the start; empty when it was not."""

    @property
    def asked(self) -> Money:
        """What the merchant asked for."""
        if self.asked_minor is None:
            return self.money
        return Money(self.money.currency_code, self.asked_minor)


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


def local_time(at: float) -> str:
    """Return a moment as the protocol writes it."""
    return datetime.fromtimestamp(at, UTC).astimezone(SHANGHAI).strftime("%Y-%m-%d %H:%M:%S")
