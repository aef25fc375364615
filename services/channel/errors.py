"""What the channel service says by itself; the failures of channels are in `results`."""

from __future__ import annotations

from common.errors import PaymeshError, Retry


class ChannelUnknownError(PaymeshError):
    """There is no channel {channel}."""

    reason = "CHANNEL_UNKNOWN"


class RefusedByChannelError(PaymeshError):
    """The other side refused: {code}."""

    reason = "DECLINED"
    retry = Retry.NEW_ID


class CurrencyMismatchError(PaymeshError):
    """The refund is in {got}, the charge in {expected}."""

    reason = "CURRENCY_MISMATCH"


class RefundExceedsChargeError(PaymeshError):
    """Only {refundable_minor} minor units of the charge are left to give back."""

    reason = "REFUND_EXCEEDS_PAYMENT"
