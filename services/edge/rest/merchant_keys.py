"""Merchants' keys, remembered for as long as `member` allows."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from common.clock import Clock
from common.errors import Outcome, PaymeshError, Retry, UnavailableError
from common.ids import is_id
from services.edge.domain import KeyHolder
from services.edge.errors import SignatureInvalidError

FindKey = Callable[[str, float], Awaitable[KeyHolder | None]]
_KEY_PREFIX = "key"
_FIND_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A good key, ready to verify with."""

    holder: KeyHolder
    public_key: Ed25519PublicKey


class MerchantKeys:
    """Finds keys; many askers of one key ask `member` once.

    Ids that nobody holds are remembered briefly and apart, so that made-up ones push out no good
    one.
    """

    def __init__(
        self, find: FindKey, clock: Clock, *, keys_max: int, unknown_seconds: float
    ) -> None:
        self._find = find
        self._clock = clock
        self._keys_max = keys_max
        self._unknown_seconds = unknown_seconds
        self._known: OrderedDict[str, tuple[TrustedKey, float]] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[TrustedKey | None]] = {}

    async def find(self, key_id: str) -> TrustedKey:
        """Return a good key.

        Raises:
            SignatureInvalidError: there is no such key, or it was revoked.
            UnavailableError: `member` does not answer; nothing was executed.
        """
        known = self._known.get(key_id)
        now = self._clock.monotonic()
        if known is not None and now < known[1]:
            self._known.move_to_end(key_id)
            return known[0]
        if not is_id(key_id, _KEY_PREFIX) or now < self._unknown.get(key_id, 0.0):
            raise SignatureInvalidError(rule="keyid names no good key")
        asking = self._asking.get(key_id)
        if asking is None:
            asking = self._asking[key_id] = asyncio.create_task(self._ask(key_id))
            asking.add_done_callback(lambda _: self._asking.pop(key_id, None))
        try:
            # One asker that goes away must not take the answer from the others.
            key = await asyncio.shield(asking)
        except PaymeshError as error:
            raise UnavailableError(
                target="member", outcome=Outcome.NOT_EXECUTED, retry=Retry.AFTER_DELAY
            ) from error
        if key is None:
            raise SignatureInvalidError(rule="keyid names no good key")
        return key

    async def _ask(self, key_id: str) -> TrustedKey | None:
        holder = await self._find(key_id, _FIND_SECONDS)
        now = self._clock.monotonic()
        self._known.pop(key_id, None)
        if holder is None or holder.is_revoked:
            self._unknown[key_id] = now + self._unknown_seconds
            if len(self._unknown) > self._keys_max:
                self._unknown.popitem(last=False)
            return None
        key = TrustedKey(holder, Ed25519PublicKey.from_public_bytes(holder.public_key))
        self._unknown.pop(key_id, None)
        self._known[key_id] = (key, now + holder.ttl_seconds)
        if len(self._known) > self._keys_max:
            self._known.popitem(last=False)
        return key
