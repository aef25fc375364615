"""Settings of the risk service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import DEVELOPMENT_SECRET, PaymeshSettings


class RiskSettings(PaymeshSettings):
    """Read from `PAYMESH_RISK_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_RISK_")

    rules_file: Path = Path(__file__).parent / "rules" / "default.toml"
    """The rules. Read at the start and whenever it changes; other content is a new version."""

    hash_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Key of the hashes that stand for addresses, devices, users and cards in counters and rows.
    Must be set in production; another key forgets all counts."""

    reload_seconds: float = Field(default=3.0, gt=0)
    """How often the file and the table of rules are looked at for changes."""

    flush_items_max: int = Field(default=256, ge=1, le=5000)
    """Most decisions written by one transaction."""

    resolve_seconds: float = Field(default=5.0, gt=0)
    """How often reservations whose outcome Redis could not be told of are tried again."""
