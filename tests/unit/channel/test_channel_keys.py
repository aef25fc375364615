"""Keys of channels are read in the forms that channels give out, and each once."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.channel.keys import read_private_key, read_public_key

PEM = serialization.Encoding.PEM
DER = serialization.Encoding.DER
PLAIN = serialization.NoEncryption()
PKCS8 = serialization.PrivateFormat.PKCS8
INFO = serialization.PublicFormat.SubjectPublicKeyInfo


def test_reading_a_key_in_either_form_gives_the_same_key() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(PEM, PKCS8, PLAIN).decode()
    bare = base64.encodebytes(key.private_bytes(DER, PKCS8, PLAIN)).decode()
    public = base64.b64encode(key.public_key().public_bytes(DER, INFO)).decode()
    assert read_private_key(pem).private_numbers() == key.private_numbers()
    assert read_private_key(bare).private_numbers() == key.private_numbers()
    assert read_public_key(public).public_numbers() == key.public_key().public_numbers()


def test_reading_a_key_again_proves_its_primes_no_more() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(PEM, PKCS8, PLAIN).decode()
    assert read_private_key(pem) is read_private_key(pem)


def test_reading_what_is_no_rsa_key_is_refused() -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(ValueError, match="RSA"):
        read_private_key(other.private_bytes(PEM, PKCS8, PLAIN).decode())
    with pytest.raises(ValueError, match="RSA"):
        read_public_key(other.public_key().public_bytes(PEM, INFO).decode())
    with pytest.raises(ValueError):
        read_private_key("no key")
