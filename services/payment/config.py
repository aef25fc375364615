"""Settings of the payment service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class PaymentSettings(PaymeshSettings):
    """Read from `PAYMESH_PAYMENT_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_PAYMENT_")

    janitor_first_seconds: float = Field(default=30.0, gt=0)
    """How long a payment may stay open before the other side is asked for the first time."""

    janitor_longest_seconds: float = Field(default=3600.0, gt=0)
    """Longest pause between two questions; pauses double from the first one up to this."""

    channel_attempts_max: int = Field(default=3, ge=1, le=10)
    """Channels that are tried for one payment while each surely did not execute."""

    request_life_seconds: float = Field(default=60.0, gt=0)
    """How long a request may be on its way to the channel service, which says by itself when one
    that it knows has lived its time at a channel: before that, "never asked" is no failure. Longer
    than any call's deadline; a success that comes later still counts."""

    flush_items_max: int = Field(default=256, ge=1, le=5000)
    """Most payments written by one transaction."""

    unknown_exception_seconds: float = Field(default=3600.0, gt=0)
    """How long it may be unknown what became of a payment or refund before a person is told."""

    exception_due_seconds: float = Field(default=86_400.0, gt=0)
    """How long an exception waits for a person; then its default action is carried out."""

    exception_repeats_max: int = Field(default=5, ge=0, le=20)
    """How often the deadline doubles after a default action in vain (asked, or tried again), and
    how often a channel that refuses to give money back is asked again before it is kept in
    `unclaimed`."""

    ask_on_read_after_seconds: float = Field(default=5.0, ge=0)
    """How old an open payment has to be before reading it makes the janitor ask at once: the first
    call is still under way before that."""

    ask_on_read_every_seconds: float = Field(default=1.0, gt=0)
    """Shortest pause between two questions that are asked because of readers."""

    waiting_funds_days: int = Field(default=7, ge=1, le=90)
    """How long a refund waits until the merchant's balance covers it; then it fails."""
