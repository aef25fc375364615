"""RSA keys as channels give them out, each read once however often the channels are built anew.

Reading a private key proves its primes, which takes a tenth of a second in which the process can do
nothing else; and every change of the channels' file or table builds channels again.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_KEPT_MAX: Final = 256
"""More than a process has channels; keys that are replaced fall out in time."""


@lru_cache(_KEPT_MAX)
def read_private_key(text: str) -> RSAPrivateKey:
    """Return the key of a PEM, or of bare base64; raises ValueError."""
    if "-----BEGIN" in text:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    else:
        key = serialization.load_der_private_key(_der(text), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("not an RSA key")
    return key


@lru_cache(_KEPT_MAX)
def read_public_key(text: str) -> RSAPublicKey:
    """Return the key of a PEM, or of bare base64; raises ValueError."""
    if "-----BEGIN" in text:
        key = serialization.load_pem_public_key(text.encode())
    else:
        key = serialization.load_der_public_key(_der(text))
    if not isinstance(key, RSAPublicKey):
        raise ValueError("not an RSA key")
    return key


def _der(text: str) -> bytes:
    return base64.b64decode("".join(text.split()), validate=True)
