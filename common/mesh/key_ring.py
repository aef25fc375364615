"""Shared keys of the mesh, several at a time so that they can be changed without a pause."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

_NAME_DEFAULT = "k1"


class KeyRing:
    """HMAC-SHA256 under named keys: the first signs, all are accepted.

    Each purpose gets keys of its own, derived from the shared secrets, so that a proof made for
    one thing is worth nothing for another.
    """

    def __init__(self, keys: Mapping[str, bytes], purpose: str) -> None:
        if not keys or not all(keys.values()):
            raise ValueError("a key ring needs at least one key, and no empty one")
        self.current = next(iter(keys))
        self._keys = {
            name: hmac.digest(secret, b"paymesh:" + purpose.encode(), hashlib.sha256)
            for name, secret in keys.items()
        }

    @classmethod
    def parse(cls, text: str, purpose: str) -> KeyRing:
        """Read `id:secret`, several separated by commas; a bare secret gets the id `k1`."""
        keys: dict[str, bytes] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            name, colon, secret = part.partition(":")
            if not colon:
                name, secret = _NAME_DEFAULT, part
            if name in keys:
                raise ValueError(f"two keys are named {name}")
            keys[name] = secret.encode()
        return cls(keys, purpose)

    def sign(self, message: bytes) -> bytes:
        """Return the 32 bytes that prove `message` under the current key."""
        return hmac.digest(self._keys[self.current], message, "sha256")

    def verify(self, key_id: str, message: bytes, signature: bytes) -> bool:
        """Say whether `signature` proves `message` under the named key."""
        key = self._keys.get(key_id)
        return key is not None and hmac.compare_digest(
            hmac.digest(key, message, "sha256"), signature
        )
