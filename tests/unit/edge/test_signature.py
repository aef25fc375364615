"""Signatures: our signer and verifier against the library for RFC 9421, both ways."""

from __future__ import annotations

import base64
import datetime
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    MappingKeyResolver,
    algorithms,
)
from hypothesis import example, given
from hypothesis import strategies as st
from paymesh.edge import RequestSigner

from common.errors import PaymeshError
from services.edge.errors import SignatureInvalidError
from services.edge.rest.signature import read_signature, verify_signature

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NOW = 1_800_000_000
KEYS = MappingKeyResolver(public_keys={"key_1": KEY.public_key()}, private_keys={"key_1": KEY})


class Message:
    """A request as the library takes it."""

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        self.method = method
        self.url = f"http://edge{target}"
        self.headers = headers


def read(method: str, target: str, headers: dict[str, str], body: bytes, *, changes: bool) -> Any:
    path, _, query = target.partition("?")
    return read_signature(
        method,
        path.encode(),
        query.encode(),
        {name.lower(): value for name, value in headers.items()},
        has_body=bool(body),
        changes=changes,
        now_seconds=NOW,
        window_seconds=300,
    )


CASES = [
    ("POST", "/v1/orders", b'{"a":1}', "k-1"),
    ("POST", "/v1/orders/trd_1/close", b"", "k-1"),
    ("GET", "/v1/orders", b"", None),
    ("GET", "/v1/orders?page_size=10&merchant_order_no=a%20b", b"", None),
]


@pytest.mark.parametrize(("method", "target", "body", "key"), CASES)
def test_the_library_accepts_what_our_signer_signs(
    method: str, target: str, body: bytes, key: str | None
) -> None:
    now = int(datetime.datetime.now(datetime.UTC).timestamp())
    headers = RequestSigner("key_1", KEY).sign(
        method, target, body, idempotency_key=key, created=now
    )

    verifier = HTTPMessageVerifier(signature_algorithm=algorithms.ED25519, key_resolver=KEYS)
    [result] = verifier.verify(Message(method, target, headers), expect_tag="paymesh", body=body)

    assert result.label == "sig1"
    assert result.parameters["keyid"] == "key_1"


@pytest.mark.parametrize(("method", "target", "body", "key"), CASES)
def test_our_verifier_accepts_what_the_library_signs(
    method: str, target: str, body: bytes, key: str | None
) -> None:
    headers = {"Host": "edge"}
    covered = ["@method", "@path", "@query"]
    if body:
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        headers["Content-Digest"] = f"sha-256=:{digest}:"
        covered.append("content-digest")
    if key is not None:
        headers["Idempotency-Key"] = key
        covered.append("idempotency-key")
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=KEYS)
    signer.sign(
        Message(method, target, headers),
        key_id="key_1",
        created=datetime.datetime.fromtimestamp(NOW, datetime.UTC),
        nonce="12345678",
        label="sig1",
        tag="paymesh",
        covered_component_ids=covered,
        use_existing_digest=bool(body),
    )

    signed = read(method, target, headers, body, changes=key is not None)
    verify_signature(signed, KEY.public_key())

    assert (signed.key_id, signed.nonce, signed.created) == ("key_1", "12345678", NOW)


@given(
    st.sampled_from(["Signature", "Signature-Input", "Content-Digest", "Idempotency-Key"]),
    st.integers(0, 400),
    st.characters(min_codepoint=33, max_codepoint=126),
)
@example("Signature", 91, "B")  # the last letter has four bits that decoding drops
def test_no_changed_letter_goes_unnoticed(name: str, place: int, letter: str) -> None:
    headers = RequestSigner("key_1", KEY).sign(
        "POST", "/v1/orders", b"{}", idempotency_key="k-1", created=NOW, nonce="12345678"
    )
    value = headers[name]
    place %= len(value)
    if value[place] == letter:
        return
    changed = {**headers, name: value[:place] + letter + value[place + 1 :]}

    with pytest.raises(PaymeshError):
        verify_signature(read("POST", "/v1/orders", changed, b"{}", changes=True), KEY.public_key())


@given(st.text(max_size=200), st.text(max_size=120))
def test_any_headers_are_read_or_refused_and_never_break(given_input: str, signature: str) -> None:
    with pytest.raises(PaymeshError):
        read(
            "GET",
            "/v1/orders",
            {"Signature-Input": given_input, "Signature": signature},
            b"",
            changes=False,
        )


def test_another_key_does_not_fit() -> None:
    headers = RequestSigner("key_1", KEY).sign("GET", "/v1/orders", created=NOW)

    signed = read("GET", "/v1/orders", headers, b"", changes=False)
    with pytest.raises(SignatureInvalidError):
        verify_signature(signed, Ed25519PrivateKey.generate().public_key())


def test_keys_are_taken_as_objects_or_bytes() -> None:
    by_object = RequestSigner("key_1", KEY)
    by_bytes = RequestSigner("key_1", KEY.private_bytes_raw())

    assert by_object.sign("GET", "/", created=1, nonce="12345678") == by_bytes.sign(
        "GET", "/", created=1, nonce="12345678"
    )
