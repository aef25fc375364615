"""Signatures at the door: what is not proven to the last part reaches nobody."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import MemberStatus

from tests.integration.edge.conftest import IDS, Edge, Reply, StartEdge

BODY = json.dumps(
    {"merchant_order_no": "n1", "amount": {"currency_code": "USD", "amount_minor": 1}}
).encode()
Change = Callable[[dict[str, str]], None]


async def send_changed(edge: Edge, change: Change) -> Reply:
    headers = edge.signer.sign("POST", "/v1/orders", BODY, idempotency_key=IDS.new("idk"))
    change(headers)
    return await edge.send("POST", "/v1/orders", BODY, headers)


def replace(name: str, old: str, new: str) -> Change:
    def change(headers: dict[str, str]) -> None:
        assert old in headers[name]
        headers[name] = headers[name].replace(old, new)

    return change


def drop(name: str) -> Change:
    return lambda headers: headers.pop(name) and None


INPUT = "Signature-Input"


@pytest.mark.parametrize(
    ("change", "reason", "about"),
    [
        (drop("Signature"), "SIGNATURE_MISSING", "signature"),
        (drop(INPUT), "SIGNATURE_MISSING", "signature-input"),
        (drop("Content-Digest"), "SIGNATURE_MISSING", "content-digest"),
        (replace(INPUT, '"@method" ', ""), "SIGNATURE_MISSING", "@method"),
        (replace(INPUT, '"@path" ', ""), "SIGNATURE_MISSING", "@path"),
        (replace(INPUT, '"@query" ', ""), "SIGNATURE_MISSING", "@query"),
        (replace(INPUT, '"content-digest" ', ""), "SIGNATURE_MISSING", "content-digest"),
        (replace(INPUT, ' "idempotency-key"', ""), "SIGNATURE_MISSING", "idempotency-key"),
        (replace(INPUT, ";nonce=", ";nonc="), "SIGNATURE_INVALID", ""),
        (replace(INPUT, ';tag="paymesh"', ""), "SIGNATURE_MISSING", "tag"),
        (replace(INPUT, ";created=", ";expires="), "SIGNATURE_MISSING", "created"),
        (replace(INPUT, "paymesh", "other"), "SIGNATURE_INVALID", ""),
        (replace(INPUT, "sig1=", "sig2="), "SIGNATURE_INVALID", ""),
        (replace(INPUT, "sig1=", "a=();created=1, sig1="), "SIGNATURE_INVALID", ""),
        (replace(INPUT, '"@path"', '"@path";req'), "SIGNATURE_INVALID", ""),
        (replace(INPUT, '"@path"', '"@path" "@path"'), "SIGNATURE_INVALID", ""),
        (replace(INPUT, '"@path"', '"@path" "@authority"'), "SIGNATURE_INVALID", ""),
        (replace(INPUT, '"@path"', '"@path" "host"'), "SIGNATURE_INVALID", ""),
        (replace(INPUT, '"@method"', "@method"), "SIGNATURE_INVALID", ""),
        (replace(INPUT, ";created=", ";created=1;created="), "SIGNATURE_INVALID", ""),
        (replace(INPUT, ";tag=", ';alg="rsa-v1_5-sha256";tag='), "SIGNATURE_INVALID", ""),
        (replace(INPUT, ";tag=", ';alg="ed25519";tag='), "SIGNATURE_INVALID", ""),
        (replace(INPUT, ";keyid=", ";keyid=7;x="), "SIGNATURE_INVALID", ""),
        (replace("Signature", "sig1=:", "sig1=:A"), "SIGNATURE_INVALID", ""),
        (replace("Signature", "sig1=:", "sig1="), "SIGNATURE_INVALID", ""),
        (replace("Idempotency-Key", "idk_", "idx_"), "SIGNATURE_INVALID", ""),
    ],
)
async def test_a_signature_that_is_not_whole_is_refused(
    edge: Edge, change: Change, reason: str, about: str
) -> None:
    reply = await send_changed(edge, change)

    assert (reply.status, reply.json["reason"]) == (401, reason)
    if about:
        assert reply.json["metadata"]["missing"] == about
    assert edge.behind.seen == []


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/refunds"),
        ("POST", "/v1/orders?x=1"),
        ("POST", "/v1/orders/trd_1/close"),
    ],
)
async def test_a_signature_for_another_request_is_refused(
    edge: Edge, method: str, target: str
) -> None:
    headers = edge.signer.sign("POST", "/v1/orders", BODY, idempotency_key=IDS.new("idk"))

    reply = await edge.send(method, target, BODY, headers)

    assert (reply.status, reply.json["reason"]) == (401, "SIGNATURE_INVALID")
    assert edge.behind.seen == []


async def test_another_body_than_the_digests_is_refused(edge: Edge) -> None:
    headers = edge.signer.sign("POST", "/v1/orders", BODY, idempotency_key=IDS.new("idk"))

    reply = await edge.send("POST", "/v1/orders", BODY.replace(b"1", b"2"), headers)

    assert (reply.status, reply.json["reason"]) == (400, "DIGEST_MISMATCH")
    assert edge.behind.seen == []


@pytest.mark.parametrize(
    "digest",
    [
        "sha-256=:AAAA:",
        "sha-256=::",
        "sha-256=nothing",
        "md5=:AAAA:",
        "sha-256",
        "SHA-256=:{good}:",
        "sha-256=:{good}:, sha-256=:{good}:",
    ],
)
async def test_a_digest_of_another_form_is_refused(edge: Edge, digest: str) -> None:
    good = base64.b64encode(hashlib.sha256(BODY).digest()).decode()

    def change(headers: dict[str, str]) -> None:
        headers["Content-Digest"] = digest.replace("{good}", good)

    reply = await send_changed(edge, change)

    assert (reply.status, reply.json["reason"]) == (400, "DIGEST_MISMATCH")


@pytest.mark.parametrize("shift", [-301, -86_400, 302, 86_400, -(10**14)])
async def test_a_request_from_outside_the_window_is_refused(edge: Edge, shift: int) -> None:
    reply = await edge.post("/v1/orders", BODY, created=int(time.time()) + shift)

    assert (reply.status, reply.json["reason"]) == (401, "REQUEST_EXPIRED")
    assert reply.json["metadata"] == {"window_seconds": "300"}
    assert edge.behind.seen == []


@pytest.mark.parametrize("shift", [-290, 290])
async def test_a_request_from_inside_the_window_passes(edge: Edge, shift: int) -> None:
    reply = await edge.post("/v1/orders", BODY, created=int(time.time()) + shift)

    assert reply.status == 200


async def test_a_replayed_request_is_refused(edge: Edge) -> None:
    headers = edge.signer.sign("POST", "/v1/orders", BODY, idempotency_key=IDS.new("idk"))

    first = await edge.send("POST", "/v1/orders", BODY, headers)
    again = await edge.send("POST", "/v1/orders", BODY, headers)

    assert first.status == 200
    assert (again.status, again.json["reason"]) == (401, "NONCE_REPLAYED")
    assert len(edge.behind.seen) == 1


async def test_a_nonce_used_for_another_request_is_refused(edge: Edge) -> None:
    nonce = IDS.new("non")

    first = await edge.get("/v1/orders", nonce=nonce)
    other = await edge.post("/v1/orders", BODY, nonce=nonce)

    assert first.status == 200
    assert other.json["reason"] == "NONCE_REPLAYED"


async def test_a_nonce_is_not_burned_by_a_wrong_signature(edge: Edge) -> None:
    nonce = IDS.new("non")
    stranger = RequestSigner(edge.signer.key_id, Ed25519PrivateKey.generate())

    forged = await edge.post("/v1/orders", BODY, signer=stranger, nonce=nonce)
    honest = await edge.post("/v1/orders", BODY, nonce=nonce)

    assert (forged.status, forged.json["reason"]) == (401, "SIGNATURE_INVALID")
    assert honest.status == 200


async def test_copies_sent_at_once_pass_once(edge: Edge) -> None:
    headers = edge.signer.sign("GET", "/v1/orders")

    replies = await asyncio.gather(
        *(edge.send("GET", "/v1/orders", b"", headers) for _ in range(8))
    )

    assert sorted(reply.status for reply in replies) == [200] + [401] * 7


@pytest.mark.parametrize("key_id", ["key_" + "0" * 26, "nothing", "key_../../x", "mer_" + "0" * 26])
async def test_a_key_that_nobody_holds_is_refused(edge: Edge, key_id: str) -> None:
    reply = await edge.post(
        "/v1/orders", BODY, signer=RequestSigner(key_id, Ed25519PrivateKey.generate())
    )

    assert (reply.status, reply.json["reason"]) == (401, "SIGNATURE_INVALID")
    assert edge.behind.seen == []


async def test_an_unknown_key_is_asked_for_once(edge: Edge) -> None:
    before = edge.behind.key_reads
    stranger = RequestSigner(IDS.new("key"), Ed25519PrivateKey.generate())

    await asyncio.gather(*(edge.post("/v1/orders", BODY, signer=stranger) for _ in range(10)))
    await edge.post("/v1/orders", BODY, signer=stranger)

    assert edge.behind.key_reads == before + 1


async def test_a_known_key_is_remembered(edge: Edge) -> None:
    await edge.get("/v1/orders")
    before = edge.behind.key_reads

    await edge.get("/v1/orders")

    assert edge.behind.key_reads == before


async def test_a_revoked_key_is_refused_once_the_answer_is_old(start_edge: StartEdge) -> None:
    edge = await start_edge(keys_unknown_seconds=0.0)
    edge.behind.ttl_seconds = 0
    good = await edge.get("/v1/orders")

    edge.behind.keys[edge.signer.key_id][0].revoked_at.CopyFrom(Timestamp(seconds=1))
    revoked = await edge.get("/v1/orders")

    assert good.status == 200
    assert (revoked.status, revoked.json["reason"]) == (401, "SIGNATURE_INVALID")


async def test_another_merchants_key_acts_for_that_merchant(edge: Edge) -> None:
    private_key, public_key = generate_key()
    key_id = edge.behind.add_key(public_key, mode="LIVE")

    reply = await edge.post("/v1/orders", BODY, signer=RequestSigner(key_id, private_key))

    assert reply.status == 200
    [(_, call)] = edge.behind.seen
    assert call.principal.merchant_id == edge.behind.keys[key_id][1].id != edge.merchant_id
    assert call.principal.mode == "LIVE"


@pytest.mark.parametrize(
    "status",
    [
        MemberStatus.MEMBER_STATUS_OPENING,
        MemberStatus.MEMBER_STATUS_SUSPENDED,
        MemberStatus.MEMBER_STATUS_CLOSED,
    ],
)
async def test_a_merchant_that_may_not_trade_reads_but_changes_nothing(
    edge: Edge, status: MemberStatus
) -> None:
    private_key, public_key = generate_key()
    signer = RequestSigner(edge.behind.add_key(public_key, status=status), private_key)

    change = await edge.post("/v1/orders", BODY, signer=signer)
    read = await edge.send("GET", "/v1/orders", b"", signer.sign("GET", "/v1/orders"))

    assert (change.status, change.json["reason"]) == (403, "MERCHANT_SUSPENDED")
    assert read.status == 200
