"""Keys of the simulated parties and of our contracts with them, made once per installation.

`sandbox.json` holds what the outside parties know, `channels.json` what we know: neither side's
private keys are in the other's file, as with real contracts. Both are readable by their owner only
and belong in a private folder, never in the repository.
"""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

PARTIES_FILE: Final = "sandbox.json"
CHANNELS_FILE: Final = "channels.json"

_ALIPAY_CHANNELS: Final = {"alipay_a": "2021000000000001", "alipay_b": "2021000000000002"}
_UNIONPAY_CHANNELS: Final = {"unionpay_a": "700000000000001", "unionpay_b": "700000000000002"}
_SIGNER_NAME: Final = "中国银联股份有限公司"
_VALID_FOR: Final = timedelta(days=3650)
_VALID_BEFORE: Final = timedelta(days=1)
"""Certificates begin a day early: clocks of two machines differ."""


@dataclass(frozen=True, slots=True)
class ChannelCredentials:
    """One channel of ours: which adapter serves it and with what settings."""

    adapter: str
    """Code of the adapter: `alipay`, `unionpay`."""
    product: str
    """The product that it can carry: `qr_pay`, `quick_pay`."""
    config: dict[str, str]
    """The adapter's settings, private keys included, without the address of the gateway."""

    def at(self, sandbox_url: str) -> dict[str, str]:
        """Return the settings complete, for a sandbox at `sandbox_url` (`http://host:port`)."""
        path = "/gateway.do" if self.adapter == "alipay" else ""
        return {**self.config, "gateway_url": sandbox_url.rstrip("/") + path}

    def __repr__(self) -> str:
        return f"ChannelCredentials(adapter={self.adapter!r}, product={self.product!r})"


@dataclass(frozen=True, slots=True)
class SandboxCredentials:
    """What the set-up hands to both sides."""

    parties_file: Path
    """For `SandboxSettings.parties_file`."""
    channels: dict[str, ChannelCredentials]
    """Our channels by code: alipay_a, alipay_b, unionpay_a, unionpay_b."""


def make_sandbox_credentials(folder: Path) -> SandboxCredentials:
    """Return the credentials kept in `folder`, making them (about a second) when there are none.

    The folder is created for its owner only. One process at a time may make them; reading is free.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / CHANNELS_FILE).exists():
        parties, channels = _make()
        _write(folder / PARTIES_FILE, parties)
        _write(folder / CHANNELS_FILE, channels)  # last: its presence says that both are whole
    stored = json.loads((folder / CHANNELS_FILE).read_text())
    return SandboxCredentials(
        parties_file=folder / PARTIES_FILE,
        channels={code: ChannelCredentials(**one) for code, one in stored.items()},
    )


def _write(file: Path, content: dict[str, Any]) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent)  # mode 0600
    with os.fdopen(descriptor, "w") as stream:
        json.dump(content, stream, ensure_ascii=False, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    Path(name).replace(file)


def _make() -> tuple[dict[str, Any], dict[str, Any]]:
    alipay_parties, channels = [], {}
    for code, app_id in _ALIPAY_CHANNELS.items():
        ours, theirs = _new_key(), _new_key()
        alipay_parties.append(
            {
                "app_id": app_id,
                "merchant_public_key": _public(ours),
                "alipay_private_key": _private(theirs),
            }
        )
        channels[code] = {
            "adapter": "alipay",
            "product": "qr_pay",
            "config": {
                "app_id": app_id,
                "private_key": _private(ours),
                "alipay_public_key": _public(theirs),
            },
        }
    root_key, signing_key = _new_key(), _new_key()
    root = _certificate("UnionPay sandbox root", root_key, "UnionPay sandbox root", root_key)
    signing = _certificate(
        f"041@8310000000083040@{_SIGNER_NAME}@00016494",
        signing_key,
        "UnionPay sandbox root",
        root_key,
    )
    merchants = []
    for code, merchant_id in _UNIONPAY_CHANNELS.items():
        ours = _new_key()
        certificate = _certificate(
            f"041@{merchant_id}@paymesh@00000001", ours, "UnionPay sandbox root", root_key
        )
        merchants.append({"merchant_id": merchant_id, "certificate": _pem(certificate)})
        channels[code] = {
            "adapter": "unionpay",
            "product": "quick_pay",
            "config": {
                "merchant_id": merchant_id,
                "certificate_id": str(certificate.serial_number),
                "private_key": _private(ours),
                "root_certificate": _pem(root),
                "signer_name": _SIGNER_NAME,
            },
        }
    unionpay = {
        "signing_certificate": _pem(signing),
        "signing_key": _private(signing_key),
        "merchants": merchants,
    }
    return {"alipay": alipay_parties, "unionpay": unionpay}, channels


def _new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def _private(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def _public(key: rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _certificate(
    name: str, key: rsa.RSAPrivateKey, issuer: str, issuer_key: rsa.RSAPrivateKey
) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _VALID_BEFORE)
        .not_valid_after(now + _VALID_FOR)
        .add_extension(x509.BasicConstraints(ca=key is issuer_key, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
