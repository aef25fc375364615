"""Settings of the notify service."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import DEVELOPMENT_SECRET, PaymeshSettings


class NotifySettings(PaymeshSettings):
    """Read from `PAYMESH_NOTIFY_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_NOTIFY_")

    private_addresses_allowed: bool = False
    """Whether webhooks may go over http and to addresses that are not the public's: only for
    demonstrations and tests on one machine."""

    sealing_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Master keys under which the secrets of addresses are sealed: `id:secret`, several separated
    by commas, of which the first seals and all open."""

    endpoints_per_merchant_max: int = Field(default=20, ge=1, le=1000)
    """Most addresses of one merchant in one mode: each event is sent to all of them."""

    attempt_timeout_seconds: float = Field(default=10.0, gt=0, le=60)
    """How long a merchant's server may take to answer."""

    lease_seconds: float = Field(default=10.0, ge=1)
    """How long a process owns the deliveries that it has claimed without a word; while it works on
    them it renews that. What a crash left is sent by another afterwards."""

    in_flight_max: int = Field(default=256, ge=1, le=10_000)
    """Most attempts of a process that are under way."""

    in_flight_per_endpoint_max: int = Field(default=64, ge=1, le=1000)
    """Most attempts of a process that are under way to one address, so that a slow one leaves
    room for others."""

    poll_seconds: float = Field(default=1.0, gt=0)
    """How often due retries, and what other processes left, are looked for. First attempts do
    not wait for it."""

    flush_items_max: int = Field(default=512, ge=1, le=5000)
    """Most outcomes of attempts written by one transaction."""
