"""UnionPay's signatures, version 5.1.0, `signMethod=01`: RSA-SHA256 over a SHA-256 in hex."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_SCHEME: Final = (padding.PKCS1v15(), hashes.SHA256())


def _digest(fields: Mapping[str, str]) -> bytes:
    names = sorted(name for name, value in fields.items() if value and name != "signature")
    text = "&".join(f"{name}={fields[name]}" for name in names)
    return hashlib.sha256(text.encode()).hexdigest().encode()


def sign(key: RSAPrivateKey, fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields with their signature."""
    signature = base64.b64encode(key.sign(_digest(fields), *_SCHEME)).decode()
    return {**fields, "signature": signature}


def verify(key: RSAPublicKey, fields: Mapping[str, str]) -> bool:
    """Say whether the fields carry the key's signature."""
    try:
        signature = base64.b64decode(fields.get("signature", ""), validate=True)
        key.verify(signature, _digest(fields), *_SCHEME)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
