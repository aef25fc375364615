"""Settings of the channel service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings


class ChannelSettings(PaymeshSettings):
    """Read from `PAYMESH_CHANNEL_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_CHANNEL_")

    channels_file: Path = Path(__file__).with_name("channels.toml")
    """Which channels there are, without secrets. Read at the start and whenever it changes; the
    channels that it names are brought into the table, those that it does not name stay."""

    credentials_file: Path = Path(".local/sandbox/channels.json")
    """The channels' secrets, `{code: {"config": {setting: value}}}`, readable by its owner only."""

    sandbox_url: str = "http://127.0.0.1:8600"
    """What `{sandbox_url}` in an address of the channels' file stands for."""

    callback_url: str = "http://127.0.0.1:8080/callbacks"
    """Where channels call back, as seen by them; the channel's code is added as the last part.
    Empty: they are told not to, and only questions bring news."""

    reload_seconds: float = Field(default=3.0, gt=0)
    """How often the file and the table of channels are looked at for changes."""

    flush_items_max: int = Field(default=256, ge=1, le=5000)
    """Most charges, or pieces of news, written by one transaction."""
