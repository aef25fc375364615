"""Orders and refunds as values, their states as data, and the arithmetic of what is left."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from common.errors import AmountOutOfRangeError, CurrencyUnknownError
from common.money import AMOUNT_MINOR_MAX, Money, UnknownCurrencyError, exponent_of, fee_of

EXPIRES_IN_DEFAULT: Final = timedelta(hours=2)
"""How long an order can be paid when nothing else was said."""


class OrderState(enum.StrEnum):
    """How far an order is."""

    CREATED = "CREATED"
    PAID = "PAID"
    COMPLETED = "COMPLETED"
    CLOSING = "CLOSING"
    CLOSED = "CLOSED"


class RefundState(enum.StrEnum):
    """How far a refund is."""

    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    WAITING_FUNDS = "WAITING_FUNDS"


_O = OrderState
_R = RefundState

ORDER_MOVES: Final[Mapping[OrderState, frozenset[OrderState]]] = {
    _O.CREATED: frozenset({_O.PAID, _O.CLOSING}),
    _O.CLOSING: frozenset({_O.PAID, _O.CLOSED}),
    _O.PAID: frozenset({_O.COMPLETED}),
    _O.COMPLETED: frozenset(),
    _O.CLOSED: frozenset(),
}
"""The moves of an order; the statements of `queries.sql` allow these and no others."""

REFUND_MOVES: Final[Mapping[RefundState, frozenset[RefundState]]] = {
    _R.PROCESSING: frozenset({_R.COMPLETED, _R.FAILED, _R.WAITING_FUNDS}),
    _R.WAITING_FUNDS: frozenset({_R.COMPLETED, _R.FAILED}),
    _R.COMPLETED: frozenset(),
    _R.FAILED: frozenset(),
}
"""The moves of a refund."""

CLAIMABLE: Final = frozenset(
    state for state, moves in ORDER_MOVES.items() if OrderState.PAID in moves
)
"""States in which a payment can win an order."""

REFUND_ENDED: Final = frozenset(state for state, moves in REFUND_MOVES.items() if not moves)
"""States in which nothing more happens to a refund."""


@dataclass(frozen=True, slots=True)
class FeePlan:
    """What a merchant pays."""

    rate_ppm: int
    returned_on_refund: bool


NO_FEE: Final = FeePlan(rate_ppm=0, returned_on_refund=False)
"""The plan of trade types without a fee."""


@dataclass(frozen=True, slots=True)
class Order:
    """A business order; the fields are in the order of the columns."""

    id: str
    tenant_id: str
    mode: str
    merchant_id: str
    actor: str
    """Who made it, `TYPE:id`."""
    request_id: str
    merchant_order_no: str
    type: str
    state: OrderState
    version: int
    currency_code: str
    amount_minor: int
    fee_minor: int
    fee_rate_ppm: int
    fee_returned_on_refund: bool
    user_id: str
    subject: str
    payment_id: str
    """The payment that won; empty before."""
    refunded_minor: int
    """Given back so far."""
    refunding_minor: int
    """Asked to be given back, not ended yet."""
    biz_trace_id: str
    metadata: Mapping[str, str]
    expires_in_seconds: int
    """As it was asked for; 0 for the default."""
    business_date: str
    """`YYYY-MM-DD` of its completion; empty before."""
    expires_at: datetime
    created_at: datetime
    updated_at: datetime

    @property
    def amount(self) -> Money:
        """What is to be paid."""
        return Money(self.currency_code, self.amount_minor)

    @property
    def refundable_minor(self) -> int:
        """What can still be asked back."""
        return self.amount_minor - self.refunded_minor - self.refunding_minor


@dataclass(frozen=True, slots=True)
class Refund:
    """Money that goes back on an order; the fields are in the order of the columns."""

    id: str
    order_id: str
    payment_id: str
    tenant_id: str
    mode: str
    merchant_id: str
    actor: str
    request_id: str
    merchant_refund_no: str
    state: RefundState
    version: int
    currency_code: str
    amount_minor: int
    fee_returned_minor: int
    reason: str
    failure_reason: str
    biz_trace_id: str
    created_at: datetime
    updated_at: datetime

    @property
    def amount(self) -> Money:
        """What goes back."""
        return Money(self.currency_code, self.amount_minor)


@dataclass(frozen=True, slots=True)
class RefundNews:
    """What is known of a refund from whoever moves the money."""

    refund_id: str
    state: RefundState
    amount: Money
    fee_returned_minor: int = 0
    failure_reason: str = ""
    business_date: str = ""
    cause: str = ""
    """The event or call that brought the news."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A payment that has received money for an order."""

    order_id: str
    payment_id: str
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """A payment whose money is booked."""

    order_id: str
    payment_id: str
    amount: Money
    business_date: str
    cause: str


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as it is asked for."""

    request_id: str
    merchant_order_no: str
    type: str
    currency_code: str
    amount_minor: int
    user_id: str = ""
    subject: str = ""
    expires_in_seconds: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    biz_trace_id: str = ""
    """The merchant's own id of the story; empty when it has none."""


def check_amount(currency_code: str, amount_minor: int, *, may_be_zero: bool) -> None:
    """Refuse an amount that no order or refund can have.

    Raises:
        CurrencyUnknownError: the registry has no such currency.
        AmountOutOfRangeError: negative, above 10^15, or zero where that is not allowed.
    """
    try:
        exponent_of(currency_code)
    except UnknownCurrencyError:
        raise CurrencyUnknownError(currency_code=currency_code) from None
    if not (0 if may_be_zero else 1) <= amount_minor <= AMOUNT_MINOR_MAX:
        raise AmountOutOfRangeError(field="amount.amount_minor")


def price(order: Order, plan: FeePlan) -> Order:
    """Return the order with its fee, which never changes afterwards."""
    return replace(
        order,
        fee_minor=fee_of(order.amount_minor, plan.rate_ppm),
        fee_rate_ppm=plan.rate_ppm,
        fee_returned_on_refund=plan.returned_on_refund,
    )


def complete_at_once(order: Order, business_date: str) -> Order:
    """Return an order for nothing as it is born: there is no money to wait for."""
    if order.amount_minor != 0:
        raise ValueError("only an order for nothing completes without a payment")
    return replace(order, state=OrderState.COMPLETED, business_date=business_date)


def differing_field(asked: Order, found: Order, *, names_story: bool) -> str | None:
    """Return the first field in which a repeat differs from what was made; None for none.

    `names_story`: the repeat names a story of its own choice. What the platform chose by itself
    (id, fee, a story's id, times) is no difference.
    """
    pairs = (
        ("merchant_order_no", asked.merchant_order_no, found.merchant_order_no),
        ("type", asked.type, found.type),
        ("amount.currency_code", asked.currency_code, found.currency_code),
        ("amount.amount_minor", asked.amount_minor, found.amount_minor),
        ("user_id", asked.user_id, found.user_id),
        ("subject", asked.subject, found.subject),
        ("expires_in_seconds", asked.expires_in_seconds, found.expires_in_seconds),
        ("metadata", dict(asked.metadata), dict(found.metadata)),
    )
    for name, one, other in pairs:
        if one != other:
            return name
    if names_story and asked.biz_trace_id != found.biz_trace_id:
        return "biz_trace_id"
    return None


def differing_refund_field(asked: Refund, found: Refund) -> str | None:
    """Return the first field in which a repeated refund differs; None for none."""
    pairs = (
        ("order_id", asked.order_id, found.order_id),
        ("merchant_refund_no", asked.merchant_refund_no, found.merchant_refund_no),
        ("amount.currency_code", asked.currency_code, found.currency_code),
        ("amount.amount_minor", asked.amount_minor, found.amount_minor),
        ("reason", asked.reason, found.reason),
    )
    return next((name for name, one, other in pairs if one != other), None)
