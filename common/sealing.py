"""Secrets at rest: envelope encryption with AES-256-GCM, named master keys and their rotation.

Each value is sealed under a data key of its own, and the data key under a master key. So a master
key is used for few bytes, and replacing it rewrites the small envelopes only. The context (which
row and column the value belongs to) is authenticated: a sealed value copied into another row does
not open there.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_FORM: Final = b"\x01"
_KEY_ID_DEFAULT: Final = "k1"
_KEY_ID_BYTES_MAX: Final = 32
_NONCE_BYTES: Final = 12
_DATA_KEY_BYTES: Final = 32
_TAG_BYTES: Final = 16
_WRAPPED_BYTES: Final = _DATA_KEY_BYTES + _TAG_BYTES
_PURPOSE: Final = b"paymesh:sealing"


class SealBrokenError(ValueError):
    """The bytes do not open: altered, of another context, or sealed under a key that is gone.

    Says nothing of the value or the key.
    """


class Sealer:
    """Seals and opens values under master keys: the first seals, all open.

    `keys` maps an id to a secret of any length (32 random bytes or more are meant); `random_bytes`
    gives nonces and data keys.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if not keys or not all(keys.values()):
            raise ValueError("a sealer needs at least one key, and no empty one")
        if any(not 0 < len(key_id.encode()) <= _KEY_ID_BYTES_MAX for key_id in keys):
            raise ValueError(f"ids of keys have 1 to {_KEY_ID_BYTES_MAX} bytes")
        self.current = next(iter(keys))
        self._random_bytes = random_bytes
        self._masters = {
            key_id: AESGCM(hmac.digest(secret, _PURPOSE, hashlib.sha256))
            for key_id, secret in keys.items()
        }

    @classmethod
    def parse(cls, text: str) -> Sealer:
        """Read `id:secret`, several separated by commas; a bare secret gets the id `k1`."""
        keys: dict[str, bytes] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key_id, colon, secret = part.partition(":")
            if not colon:
                key_id, secret = _KEY_ID_DEFAULT, part
            if key_id in keys:
                raise ValueError(f"two keys are named {key_id}")
            keys[key_id] = secret.encode()
        return cls(keys)

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return `plaintext` sealed for `context`, such as `user_cards.number:crd_01…`."""
        data_key = self._random_bytes(_DATA_KEY_BYTES)
        nonce = self._random_bytes(_NONCE_BYTES)
        body = nonce + AESGCM(data_key).encrypt(nonce, plaintext, context.encode())
        return self._wrap(data_key, context) + body

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the value that `seal` was given; raises SealBrokenError."""
        data_key, body = self._unwrap(sealed, context)
        try:
            return AESGCM(data_key).decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], context.encode()
            )
        except (InvalidTag, ValueError):
            raise SealBrokenError("a sealed value does not open") from None

    def is_current(self, sealed: bytes) -> bool:
        """Say whether the value is sealed under the key that seals now."""
        return self._key_id_of(sealed) == self.current

    def reseal(self, sealed: bytes, context: str) -> bytes:
        """Return the value sealed under the key that seals now, for rotation.

        The value itself is not opened, only its data key. Raises SealBrokenError.
        """
        data_key, body = self._unwrap(sealed, context)
        return self._wrap(data_key, context) + body

    def _wrap(self, data_key: bytes, context: str) -> bytes:
        nonce = self._random_bytes(_NONCE_BYTES)
        key_id = self.current.encode()
        wrapped = self._masters[self.current].encrypt(nonce, data_key, context.encode())
        return _FORM + bytes([len(key_id)]) + key_id + nonce + wrapped

    def _unwrap(self, sealed: bytes, context: str) -> tuple[bytes, bytes]:
        key_id = self._key_id_of(sealed)
        master = self._masters.get(key_id)
        if master is None:
            raise SealBrokenError("a value is sealed under a key that is not there")
        start = 2 + len(key_id.encode())
        middle = start + _NONCE_BYTES
        end = middle + _WRAPPED_BYTES
        try:
            data_key = master.decrypt(sealed[start:middle], sealed[middle:end], context.encode())
        except (InvalidTag, ValueError):
            raise SealBrokenError("a sealed value does not open") from None
        return data_key, sealed[end:]

    def _key_id_of(self, sealed: bytes) -> str:
        if len(sealed) < 2 or sealed[:1] != _FORM:
            raise SealBrokenError("the bytes are no sealed value")
        try:
            return sealed[2 : 2 + sealed[1]].decode()
        except UnicodeDecodeError:
            raise SealBrokenError("the bytes are no sealed value") from None
