"""What routing refuses."""

from __future__ import annotations

from common.errors import PaymeshError


class ChannelNotEligibleError(PaymeshError):
    """No channel can carry this payment by {product}: {why}."""

    reason = "CHANNEL_NOT_ELIGIBLE"
