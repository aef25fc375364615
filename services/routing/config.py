"""Settings of the routing service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class RoutingSettings(PaymeshSettings):
    """Read from `PAYMESH_ROUTING_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_ROUTING_")

    rules_file: Path = Path(__file__).parent / "rules" / "default.toml"
    """The rules of a new installation; becomes version 1 when there are none yet."""

    reload_seconds: float = Field(default=2.0, gt=0)
    """How often a process looks for a new version of the rules."""
