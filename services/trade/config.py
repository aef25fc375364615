"""Settings of the trade service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class TradeSettings(PaymeshSettings):
    """Read from `PAYMESH_TRADE_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_TRADE_")

    flush_items_max: int = Field(default=512, ge=1, le=5000)
    """Most orders written or read by one statement."""

    expiry_poll_seconds: float = Field(default=1.0, gt=0)
    """How often orders are looked for whose time to be paid has passed."""

    expiry_batch_max: int = Field(default=200, ge=1, le=5000)
    """Most expired orders that are closed in one round."""

    calls_at_once_max: int = Field(default=16, ge=1, le=500)
    """Most calls to payment that a round of closings or repeats makes at the same time."""

    again_first_seconds: float = Field(default=5.0, gt=0)
    """First pause before a closing or refund is asked about again; it doubles each time."""

    again_longest_seconds: float = Field(default=600.0, gt=0)
    """Longest pause between two questions."""

    ask_on_read_after_seconds: float = Field(default=5.0, ge=0)
    """How old an open order or refund has to be before reading it makes payment be asked: its first
    calls are still under way before that."""

    ask_on_read_every_seconds: float = Field(default=5.0, gt=0)
    """Shortest pause between two such questions about one order or refund."""

    fee_plans_max: int = Field(default=10_000, ge=1)
    """Most merchants whose fee plan is kept in memory."""

    wallets_max: int = Field(default=100_000, ge=1)
    """Most users whose wallets are kept in memory."""
