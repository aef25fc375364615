"""Settings of the channel service."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from common.settings import PaymeshSettings

NOWHERE: Final = "nowhere"
"""The callback address of channels that are not to call back; empty would be the default."""


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
    `nowhere`: they are told not to, and only questions bring news."""

    reload_seconds: float = Field(default=3.0, gt=0)
    """How often the file and the table of channels are looked at for changes."""

    outcome_reserve_seconds: float = Field(default=0.25, ge=0)
    """What a call of a channel leaves of its caller's time, to store the outcome and to tell it
    before the caller gives up."""

    callback_question_seconds: float = Field(default=2.0, gt=0)
    """Longest that a callback waits while its channel is asked whether it is true. Shorter than
    what channels wait for their acknowledgement (5 s and more)."""

    breaker_failures: int = Field(default=10, ge=1)
    """So many calls of a channel in a row that it did not take or not answer open its breaker. High
    enough that answers lost now and then, one in ten even, practically never do."""

    breaker_open_seconds: float = Field(default=2.0, gt=0)
    """How long an open breaker refuses new payments before it lets one try. A question that is
    answered closes it earlier."""

    flush_items_max: int = Field(default=256, ge=1, le=5000)
    """Most charges, or pieces of news, written by one transaction."""
