"""The rules in force, in memory: choices need no database."""

from __future__ import annotations

import asyncio
import logging
import tomllib
from pathlib import Path
from typing import Final

from common.clock import Clock
from common.context import ActorType, CallContext, Principal
from common.db.failures import is_away
from services.routing.domain import ChannelRule, RuleSet, fault_of
from services.routing.store import NewVersion, RuleStore, rules_from_json

_log = logging.getLogger(__name__)
_OURSELVES: Final = CallContext(
    principal=Principal(actor_type=ActorType.SERVICE, actor_id="routing")
)


class RulesFileError(Exception):
    """The file of rules is wrong; the message says where."""


def read_rules(path: Path) -> tuple[ChannelRule, ...]:
    """Read a file of rules, each filled up from `[defaults]`.

    Raises:
        RulesFileError: it cannot be read, or its rules contradict each other.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        defaults = content.get("defaults", {})
        rules = rules_from_json([defaults | rule for rule in content["rules"]])
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as error:
        raise RulesFileError(f"{path}: {error}") from error
    fault = fault_of(rules)
    if fault is not None:
        raise RulesFileError(f"{path}: {fault[0]}: {fault[1]}")
    return rules


class Rulebook:
    """The rules of this process; `run` keeps them up to date."""

    def __init__(self, store: RuleStore, clock: Clock, reload_seconds: float) -> None:
        self._store = store
        self._clock = clock
        self._reload_seconds = reload_seconds
        self._rules = RuleSet(0, ())

    @property
    def rules(self) -> RuleSet:
        """The rules in force, as far as this process knows."""
        return self._rules

    async def load(self) -> None:
        """Take the last version, when it is another than the one in memory."""
        if await self._store.find_current_version() == self._rules.version:
            return
        current = await self._store.find_current()
        if current is not None:
            self._rules = current
            _log.info("routing rules: version %d", current.version)

    async def begin(self, path: Path) -> None:
        """Take the last version; make the file's rules the first one where there is none.

        Raises:
            RulesFileError: there is none, and the file is wrong.
        """
        if await self._store.find_current_version() == 0:
            await self._store.add(
                NewVersion(
                    request_id="first rules",
                    rules=read_rules(path),
                    expected_version=0,
                    reason="the installation's first rules",
                    call=_OURSELVES,
                    at=self._clock.now(),
                )
            )
        await self.load()

    async def run(self) -> None:
        """Look for new versions until cancelled; the old ones stay while nobody can be asked."""
        while True:
            await asyncio.sleep(self._reload_seconds)
            try:
                await self.load()
            except Exception as error:
                if not is_away(error):
                    raise
                _log.warning("routing rules stay as they were: %r", error)
