"""What payment refuses, each with its reason."""

from __future__ import annotations

from common.errors import Outcome, PaymeshError, Retry


class OrderNotPayableError(PaymeshError):
    """The order is {state} and takes no payment."""

    reason = "ORDER_NOT_PAYABLE"


class OrderExpiredError(PaymeshError):
    """The time to pay the order has passed."""

    reason = "ORDER_EXPIRED"


class ProductUnknownError(PaymeshError):
    """There is no product {product} for an order of this type."""

    reason = "PRODUCT_UNKNOWN"


class ProductFieldMissingError(PaymeshError):
    """The product needs {field}."""

    reason = "PRODUCT_FIELD_MISSING"


class RefundExceedsPaymentError(PaymeshError):
    """Only {refundable_minor} minor units of the payment are left to give back."""

    reason = "REFUND_EXCEEDS_PAYMENT"


class OrderNotRefundableError(PaymeshError):
    """The payment has not succeeded, so nothing can be given back."""

    reason = "ORDER_NOT_REFUNDABLE"


class CurrencyMismatchError(PaymeshError):
    """The refund is in {got}, the payment in {expected}."""

    reason = "CURRENCY_MISMATCH"


class ChannelNotEligibleError(PaymeshError):
    """No channel can carry this payment by {product}: {why}"""

    reason = "CHANNEL_NOT_ELIGIBLE"


class LedgerRefusedError(PaymeshError):
    """The ledger refused to book {step}, which must not fail ({ledger_reason})."""

    reason = "INTERNAL"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class MakerIsCheckerError(PaymeshError):
    """The resolution was proposed by {maker}; another person has to decide about it."""

    reason = "MAKER_IS_CHECKER"
