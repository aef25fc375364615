"""Which channels there are, ready to be called; changed without a restart.

The truth is the table `channels`. The file of channels is brought into it at the start and whenever
it changes, and every process looks at the table every few seconds and builds anew what differs. The
secrets never enter the table: they are read from a file of their own when an adapter is built.
"""

from __future__ import annotations

import asyncio
import json
import logging
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.clock import Clock
from common.money import AMOUNT_MINOR_MAX, Money
from services.channel.adapters import AdapterRegistryError, build_adapter
from services.channel.config import NOWHERE, ChannelSettings
from services.channel.errors import ChannelUnknownError
from services.channel.guard import Guard, Hook
from services.channel.results import ChannelInvalidError, ChannelUnavailableError, Verb
from services.channel.store.channels import ChannelRow, ChannelTable
from services.channel.transport import Transport

_log = logging.getLogger(__name__)
_SANDBOX: Final = "{sandbox_url}"


class ChannelsFileError(Exception):
    """The file of channels, or of their secrets, is wrong; the message says where, no values."""


class _Channel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    adapter: str
    products: tuple[str, ...] = Field(min_length=1)
    currency_codes: tuple[str, ...] = Field(min_length=1)
    amount_min_minor: int = Field(default=1, ge=1)
    amount_max_minor: int = Field(default=AMOUNT_MINOR_MAX, le=AMOUNT_MINOR_MAX)
    request_life_seconds: int = Field(default=900, ge=1)
    timeout_seconds: float = Field(default=10.0, gt=0)
    suspended: bool = False
    credentials: str = ""
    config: dict[str, Any] = Field(default_factory=dict)


class _ChannelsFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    channels: dict[str, _Channel]


def read_channels(path: Path) -> list[ChannelRow]:
    """Read the file of channels.

    Raises:
        ChannelsFileError: it cannot be read, or says what no channel can be.
    """
    try:
        content = _ChannelsFile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ChannelsFileError(f"{path}: {error}") from error
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise ChannelsFileError(f"{path}: wrong {places}") from None
    return [
        ChannelRow(
            code=code,
            adapter=one.adapter,
            products=one.products,
            currency_codes=one.currency_codes,
            amount_min_minor=one.amount_min_minor,
            amount_max_minor=one.amount_max_minor,
            request_life_seconds=one.request_life_seconds,
            timeout_seconds=one.timeout_seconds,
            suspended=one.suspended,
            config=one.config,
            credentials=one.credentials or code,
        )
        for code, one in sorted(content.channels.items())
    ]


def read_credentials(path: Path) -> Mapping[str, Mapping[str, object]]:
    """Read the channels' secrets; raises ChannelsFileError."""
    try:
        content = json.loads(path.read_bytes())
        return {name: dict(one["config"]) for name, one in content.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChannelsFileError(f"{path}: {type(error).__name__}") from None


@dataclass(frozen=True, slots=True)
class Channel:
    """One channel, ready to be called."""

    row: ChannelRow
    guard: Guard

    @property
    def code(self) -> str:
        """Its code."""
        return self.row.code

    @property
    def request_life(self) -> timedelta:
        """Longest life of a request: until then "not found" is no failure."""
        return timedelta(seconds=self.row.request_life_seconds)

    def check(self, product: str, amount: Money) -> None:
        """Refuse what this channel does not take.

        Raises:
            ChannelUnavailableError: it is suspended.
            ChannelInvalidError: it has not this product, currency or amount.
        """
        row = self.row
        if row.suspended:
            raise ChannelUnavailableError(channel=row.code, cause="suspended")
        if product not in row.products:
            raise ChannelInvalidError(channel=row.code, raw_code="product")
        if amount.currency_code not in row.currency_codes:
            raise ChannelInvalidError(channel=row.code, raw_code="currency")
        if not row.amount_min_minor <= amount.amount_minor <= row.amount_max_minor:
            raise ChannelInvalidError(channel=row.code, raw_code="amount")


class Catalogue:
    """The channels of this process; `run` keeps them up to date."""

    def __init__(
        self,
        table: ChannelTable,
        session: aiohttp.ClientSession,
        clock: Clock,
        settings: ChannelSettings,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self._table = table
        self._session = session
        self._clock = clock
        self._settings = settings
        self._hooks = tuple(hooks)
        self._channels: dict[str, Channel] = {}
        self._file_seen: tuple[float, float] = (0.0, 0.0)

    def find(self, code: str) -> Channel:
        """Return a channel; raises ChannelUnknownError."""
        channel = self._channels.get(code)
        if channel is None:
            raise ChannelUnknownError(channel=code)
        return channel

    def list_all(self) -> list[Channel]:
        """Return all channels, by code."""
        return [self._channels[code] for code in sorted(self._channels)]

    def callback_url_of(self, code: str) -> str:
        """Return where a channel calls back; empty for nowhere."""
        base = self._settings.callback_url
        return "" if base == NOWHERE else f"{base.rstrip('/')}/{code}"

    async def load(self) -> None:
        """Bring the file into the table when it is new, and the table into this process.

        Raises:
            ChannelsFileError, AdapterRegistryError: nothing of it is taken.
        """
        seen = self._look_at_files()
        is_new = seen != self._file_seen
        if is_new:
            rows = read_channels(self._settings.channels_file)
            credentials = read_credentials(self._settings.credentials_file)
            self._build_all(rows, credentials, always=True)  # refused before it is written
            await self._table.put(rows, self._clock.now())
        stored = await self._table.read()
        known = {code: channel.row.version for code, channel in self._channels.items()}
        if is_new or known != {row.code: row.version for row in stored}:
            credentials = read_credentials(self._settings.credentials_file)
            self._channels = self._build_all(stored, credentials, always=is_new)
        self._file_seen = seen

    async def run(self) -> None:
        """Look for changes until cancelled; what is wrong is logged, and the old stays in force."""
        while True:
            await asyncio.sleep(self._settings.reload_seconds)
            try:
                await self.load()
            except (ChannelsFileError, AdapterRegistryError) as error:
                _log.error("channels stay as they were: %s", error)
                self._file_seen = self._look_at_files()

    def _look_at_files(self) -> tuple[float, float]:
        settings = self._settings
        times = [
            path.stat().st_mtime if path.exists() else 0.0
            for path in (settings.channels_file, settings.credentials_file)
        ]
        return times[0], times[1]

    def _build_all(
        self,
        rows: Sequence[ChannelRow],
        credentials: Mapping[str, Mapping[str, object]],
        *,
        always: bool,
    ) -> dict[str, Channel]:
        built: dict[str, Channel] = {}
        for row in rows:
            known = self._channels.get(row.code)
            if known is not None and known.row.version == row.version and not always:
                built[row.code] = known
            else:
                built[row.code] = self._build(row, credentials.get(row.credentials, {}))
        return built

    def _build(self, row: ChannelRow, secrets: Mapping[str, object]) -> Channel:
        config = {
            name: value.replace(_SANDBOX, self._settings.sandbox_url.rstrip("/"))
            if isinstance(value, str)
            else value
            for name, value in row.config.items()
        }
        transport = Transport(self._session, row.code, timeout_seconds=row.timeout_seconds)
        adapter = build_adapter(
            row.adapter, row.code, {**secrets, **config}, transport, self._clock
        )
        guard = Guard(
            adapter,
            clock=self._clock,
            hooks=self._hooks,
            timeout_seconds=row.timeout_seconds,
            reserve_seconds=self._settings.outcome_reserve_seconds,
        )
        return Channel(row, guard)


def verbs_of(channel: Channel) -> list[str]:
    """Return the verbs that a channel supports, in their order."""
    return [verb.value for verb in Verb if verb in channel.guard.capabilities]
