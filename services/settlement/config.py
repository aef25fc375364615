"""Settings of the settlement service."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class SettlementSettings(PaymeshSettings):
    """Read from `PAYMESH_SETTLEMENT_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_SETTLEMENT_")

    default_rate_ppm: int = Field(default=6_000, ge=0, le=1_000_000)
    """What a merchant without a plan of its own pays, in parts per million: 0.60 %."""

    default_returned_on_refund: bool = True
    """Whether the fee of such a merchant goes back in proportion on refunds."""

    plan_ttl_seconds: int = Field(default=60, ge=0, le=86_400)
    """How long callers may keep a fee plan: a change reaches new orders within this time."""
