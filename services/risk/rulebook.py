"""The rules in force, in memory; a changed file becomes a new version without a restart."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.audit import digest_of
from common.clock import Clock
from common.db.failures import is_away
from common.money import AMOUNT_MINOR_MAX
from services.risk.domain import AmountRule, CounterRule, Rules
from services.risk.store import RiskStore

_log = logging.getLogger(__name__)

Hash = Callable[[str, str], str]
"""(dimension, value) → what stands for it in keys and rows; empty for an empty value."""


class RulesFileError(Exception):
    """The file of rules is wrong; the message says where, and no value."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Amount(_Part):
    code: str = Field(pattern=r"^[a-z][a-z0-9_]{1,39}$")
    actions: tuple[str, ...] = Field(min_length=1)
    products: tuple[str, ...] = ()
    amount_max_minor: int = Field(ge=0, le=AMOUNT_MINOR_MAX)


class _Counter(_Part):
    code: str = Field(pattern=r"^[a-z][a-z0-9_]{1,39}$")
    actions: tuple[str, ...] = Field(min_length=1)
    dimension: Literal["user", "card", "ip", "device"]
    measure: Literal["count", "sum"]
    # A day at most: what was reserved is remembered for two.
    window: Literal["day"] | int = Field(default="day")
    counts: Literal["successes", "attempts"] = "successes"
    limit: int = Field(ge=0, le=AMOUNT_MINOR_MAX)


class _Reservation(_Part):
    lifetime_seconds: int = Field(default=10_800, ge=1, le=86_400)


class _Blocked(_Part):
    users: tuple[str, ...] = ()
    cards: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()


class _File(_Part):
    reservation: _Reservation = _Reservation()
    degraded: dict[str, int] = Field(default_factory=dict)
    amounts: tuple[_Amount, ...] = ()
    counters: tuple[_Counter, ...] = ()
    blocked: _Blocked = _Blocked()


def hasher(secret: str) -> Hash:
    """Return the keyed hash of an installation; values cannot be guessed without its key."""
    key = hashlib.sha256(f"risk values {secret}".encode()).digest()

    def hash_value(dimension: str, value: str) -> str:
        if not value:
            return ""
        text = f"{dimension}\x1f{value}".encode()
        return hmac.new(key, text, hashlib.sha256).hexdigest()[:32]

    return hash_value


def read_rules(path: Path, hash_value: Hash) -> dict[str, Any]:
    """Read a file of rules as the row keeps it: blocked values as hashes.

    Raises:
        RulesFileError: it cannot be read, or says what no rules can be.
    """
    try:
        file = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise RulesFileError(f"{path}: {error}") from error
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise RulesFileError(f"{path}: wrong {places}") from None
    codes = [one.code for one in file.amounts] + [one.code for one in file.counters]
    twice = {code for code in codes if codes.count(code) > 1}
    if twice:
        raise RulesFileError(f"{path}: two rules are called {', '.join(sorted(twice))}")
    for rule in file.counters:
        if rule.window != "day" and not 1 <= rule.window <= _WINDOW_SECONDS_MAX:
            raise RulesFileError(f"{path}: {rule.code}: a window has 1 to 86,400 seconds")
    content = file.model_dump(mode="json")
    content["blocked"] = {
        name.removesuffix("s"): sorted(hash_value(name.removesuffix("s"), one) for one in values)
        for name, values in content["blocked"].items()
    }
    return content


_WINDOW_SECONDS_MAX: Final = 86_400


def rules_from_json(version: int, content: dict[str, Any]) -> Rules:
    """Return the rules of a row."""
    return Rules(
        version=version,
        amounts=tuple(
            AmountRule(
                one["code"],
                tuple(one["actions"]),
                one["amount_max_minor"],
                tuple(one["products"]),
            )
            for one in content["amounts"]
        ),
        counters=tuple(
            CounterRule(
                code=one["code"],
                actions=tuple(one["actions"]),
                dimension=one["dimension"],
                measure=one["measure"],
                limit=one["limit"],
                window_seconds=0 if one["window"] == "day" else one["window"],
                counts_attempts=one["counts"] == "attempts",
            )
            for one in content["counters"]
        ),
        blocked={name: frozenset(values) for name, values in content["blocked"].items()},
        degraded_max_minor=content["degraded"],
        reservation_seconds=content["reservation"]["lifetime_seconds"],
    )


class Rulebook:
    """The rules of this process; `run` keeps them up to date."""

    def __init__(
        self, store: RiskStore, clock: Clock, path: Path, hash_value: Hash, reload_seconds: float
    ) -> None:
        self._store = store
        self._clock = clock
        self._path = path
        self._hash_value = hash_value
        self._reload_seconds = reload_seconds
        self._rules = Rules(0)
        self._file_seen = 0.0

    @property
    def rules(self) -> Rules:
        """The rules in force, as far as this process knows."""
        return self._rules

    async def load(self) -> None:
        """Make a changed file a new version, and take the last version into memory.

        Raises:
            RulesFileError: the file is wrong; the rules stay as they are.
        """
        seen = self._path.stat().st_mtime if self._path.exists() else 0.0
        if seen != self._file_seen or self._rules.version == 0:
            content = read_rules(self._path, self._hash_value)
            digest = digest_of(content)
            current = await self._store.find_current_rules()
            if current is None or current["digest"] != digest:
                version = 1 if current is None else current["version"] + 1
                await self._store.add_rules(version, digest, content, self._clock.now())
            self._file_seen = seen
        if await self._store.find_current_version() != self._rules.version:
            current = await self._store.find_current_rules()
            if current is not None:
                self._rules = rules_from_json(current["version"], current["rules"])
                _log.info("risk rules: version %d", self._rules.version)

    async def run(self) -> None:
        """Look for changes until cancelled; the old rules stay while the new ones are wrong."""
        while True:
            await asyncio.sleep(self._reload_seconds)
            try:
                await self.load()
            except RulesFileError as error:
                _log.error("risk rules stay as they were: %s", error)
            except Exception as error:
                if not is_away(error):
                    raise
                _log.warning("risk rules stay as they were: %r", error)
