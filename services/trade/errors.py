"""What trade refuses, each with its reason."""

from __future__ import annotations

from common.errors import PaymeshError


class MerchantNumberUsedError(PaymeshError):
    """The number was used before for something else: {field} differs."""

    reason = "MERCHANT_NUMBER_USED"


class OrderNotRefundableError(PaymeshError):
    """The order {order_id} has no completed payment, so nothing can be given back."""

    reason = "ORDER_NOT_REFUNDABLE"


class RefundExceedsPaymentError(PaymeshError):
    """Only {refundable_minor} minor units of the order are left to give back."""

    reason = "REFUND_EXCEEDS_PAYMENT"


class CurrencyMismatchError(PaymeshError):
    """The refund is in {got}, the order in {expected}."""

    reason = "CURRENCY_MISMATCH"


class ContradictionError(Exception):
    """An event says what these rows rule out; it is set aside for a person, never applied."""
