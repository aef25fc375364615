"""Settings of the account service: `PAYMESH_ACCOUNT_…`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings
from services.account.chart_files import CHART_FOLDER


class AccountSettings(PaymeshSettings):
    """How the ledger takes its transfers."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_ACCOUNT_")

    batch_transfers_max: int = Field(default=2048, ge=1, le=8192)
    """Most transfers of one transaction: larger ones gain nothing and let the next wait."""

    queue_transfers_max: int = Field(default=32_768, ge=1)
    """Most transfers that wait in one process; beyond it calls are refused as OVERLOADED."""

    chain_transfers_max: int = Field(default=128, ge=2, le=8192)
    """Most transfers of one linked chain; a chain never spans transactions."""

    id_window_days: int = Field(default=400, ge=1)
    """How old the time inside a transfer's id may be."""

    business_date_first: date | None = None
    """Business date of a new installation; the day of its first start when not given."""

    chart_folder: Path = CHART_FOLDER
    """Folder of the chart of accounts: `kinds.toml`, `subjects.toml` and `rules.toml`. What is
    wrong in them stops the process."""

    inner_books: bool = True
    """Whether this process makes vouchers, beside others that do. When none does, the outer books
    run alone, and the general ledger stands still."""

    proof_interval_seconds: float = Field(default=60.0, gt=0)
    """How often it is proved that the accounts add up to the general ledger, when they move. Each
    proof sums up all accounts."""
