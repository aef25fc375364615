"""The settings of the demo's processes, quiet and under fire.

Under fire all patience is shortened, so that what takes a platform minutes or hours to find out by
itself is seen within the run. No safety is changed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_CHANNELS: Final = Path(__file__).resolve().parents[2] / "channel" / "channels.toml"

QUIET: Final = {
    # The shop's webhook server and the sandbox are on this machine's loopback.
    "PAYMESH_NOTIFY_PRIVATE_ADDRESSES_ALLOWED": "true",
    "PAYMESH_ACCOUNT_BUSINESS_DATE_FIRST": "1997-01-01",
    "PAYMESH_LOG_LEVEL": "WARNING",
}

REQUEST_LIFE_SECONDS: Final = 20
"""Longer than the longest pause of a party's process and the longest answer that is waited for."""

UNDER_FIRE: Final = QUIET | {
    "PAYMESH_PAYMENT_JANITOR_FIRST_SECONDS": "1",
    "PAYMESH_PAYMENT_JANITOR_LONGEST_SECONDS": "10",
    # The channel knows when its request was sent and says when it can no longer arrive; payment's
    # own limit is only for a channel that never says so.
    "PAYMESH_PAYMENT_REQUEST_LIFE_SECONDS": str(2 * REQUEST_LIFE_SECONDS),
    # Time enough for the two people at the desk, short enough for the run.
    "PAYMESH_PAYMENT_EXCEPTION_DUE_SECONDS": "4",
    "PAYMESH_PAYMENT_UNKNOWN_EXCEPTION_SECONDS": "10",
    "PAYMESH_PAYMENT_ASK_ON_READ_AFTER_SECONDS": "1",
    "PAYMESH_TRADE_AGAIN_FIRST_SECONDS": "1",
    "PAYMESH_TRADE_AGAIN_LONGEST_SECONDS": "10",
    "PAYMESH_NOTIFY_ATTEMPT_TIMEOUT_SECONDS": "3",
    "PAYMESH_NOTIFY_LEASE_SECONDS": "6",
    "PAYMESH_SANDBOX_NOTIFY_INTERVALS_SECONDS": "[0.5, 1, 2, 2, 4]",
    "PAYMESH_SANDBOX_NOTIFY_TIMEOUT_SECONDS": "3",
    "PAYMESH_SANDBOX_PROCESSING_SECONDS": "1",
}


def under_fire_files() -> dict[str, tuple[str, str]]:
    """Return files of settings, as `Plan.files`: the channels, whose requests live shortly."""
    channels = re.sub(
        r"^request_life_seconds = \d+$",
        f"request_life_seconds = {REQUEST_LIFE_SECONDS}",
        _CHANNELS.read_text(),
        flags=re.MULTILINE,
    )
    return {"PAYMESH_CHANNEL_CHANNELS_FILE": ("channels.toml", channels)}
