"""How a service proves its name where there is no mTLS: metadata `paymesh-caller`.

`<name>.<key id>.<expiry, Unix seconds>.<HMAC-SHA256, hex>`: signed with the mesh's shared secret,
so that only processes of the mesh can make one. It proves membership, not which process of the
mesh speaks: whoever holds the secret can take any name. Where that is not enough, mTLS is on, the
value is the bare name, and it counts only when the peer's certificate carries it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from common.clock import Clock
from common.errors import UnauthenticatedError
from common.mesh.key_ring import KeyRing

CALLER_KEY: Final = "paymesh-caller"
"""Metadata key of the caller's name and its proof."""

LIFETIME_SECONDS: Final = 3_600
"""A token is used for half of this and accepted for all of it, so that one under way never ends."""

_CACHE_MAX: Final = 1_024


class CallerTokens:
    """Makes and reads the tokens of callers; each token is verified once."""

    def __init__(self, keys: KeyRing, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._made: dict[str, tuple[str, float]] = {}
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def make(self, name: str, now: float) -> str:
        """Return a token for the service `name`, the same one for half an hour.

        `now` is the clock's `monotonic`, which the caller has read already.
        """
        made = self._made.get(name)
        if made is not None and now < made[1]:
            return made[0]
        expires_at = int(self._clock.now().timestamp()) + LIFETIME_SECONDS
        text = f"{name}.{self._keys.current}.{expires_at}"
        token = f"{text}.{self._keys.sign(text.encode()).hex()}"
        self._made[name] = (token, now + LIFETIME_SECONDS / 2)
        return token

    def read(self, token: str, now: float) -> str:
        """Return the name that a token proves; raises UnauthenticatedError. `now` as above."""
        known = self._known.get(token)
        if known is not None and now < known[1]:
            return known[0]
        name, left_seconds = self._verify(token)
        self._known[token] = (name, now + left_seconds)
        if len(self._known) > _CACHE_MAX:
            self._known.popitem(last=False)
        return name

    def _verify(self, token: str) -> tuple[str, float]:
        text, _, signature = token.rpartition(".")
        name, _, rest = text.partition(".")
        key_id, _, expiry = rest.partition(".")
        try:
            proof = bytes.fromhex(signature)
            left_seconds = int(expiry) - self._clock.now().timestamp()
        except ValueError:
            raise UnauthenticatedError from None
        if not self._keys.verify(key_id, text.encode(), proof) or left_seconds <= 0:
            raise UnauthenticatedError
        return name, left_seconds
