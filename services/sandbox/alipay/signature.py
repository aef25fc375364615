"""RSA2 as Alipay does it: SHA256withRSA over sorted `key=value` pairs or a response object."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

_SCHEME: Final = (padding.PKCS1v15(), hashes.SHA256())


def request_text(parameters: Mapping[str, str]) -> bytes:
    """Return what a merchant signs in a request: everything but `sign`."""
    return _joined(parameters, ("sign",))


def notice_text(parameters: Mapping[str, str]) -> bytes:
    """Return what Alipay signs in a notification: everything but `sign` and `sign_type`."""
    return _joined(parameters, ("sign", "sign_type"))


def _joined(parameters: Mapping[str, str], without: tuple[str, ...]) -> bytes:
    names = sorted(name for name, value in parameters.items() if value and name not in without)
    return "&".join(f"{name}={parameters[name]}" for name in names).encode()


def sign(key: RSAPrivateKey, text: bytes) -> str:
    """Return the signature in base64."""
    return base64.b64encode(key.sign(text, *_SCHEME)).decode()


def verify(key: RSAPublicKey, signature: str, text: bytes) -> bool:
    """Say whether the signature is the key's."""
    try:
        key.verify(base64.b64decode(signature, validate=True), text, *_SCHEME)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True
