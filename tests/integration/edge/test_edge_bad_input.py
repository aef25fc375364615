"""Bad input at the door: a typed problem each, nothing reaches a service."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.edge.conftest import IDS, Edge, compose, read_reply

USD = {"currency_code": "USD", "amount_minor": 100}
GOOD = {"merchant_order_no": "n1", "amount": USD}


def order(**changed: Any) -> dict[str, Any]:
    return {**GOOD, **changed}


def amount(minor: str) -> bytes:
    return (
        b'{"merchant_order_no":"n1","amount":{"currency_code":"USD","amount_minor":%s}}'
        % minor.encode()
    )


JSON_CASES: list[tuple[str, Any, str, str]] = [
    ("amount as a string", amount('"100"'), "JSON_INVALID", "amount.amount_minor"),
    ("amount as 1.0", amount("1.0"), "JSON_INVALID", "amount.amount_minor"),
    ("amount as 1e3", amount("1e3"), "JSON_INVALID", "amount.amount_minor"),
    ("amount as true", amount("true"), "JSON_INVALID", "amount.amount_minor"),
    ("amount as null", amount("null"), "JSON_INVALID", "amount.amount_minor"),
    ("amount as a list", amount("[1]"), "JSON_INVALID", "amount.amount_minor"),
    ("amount as NaN", amount("NaN"), "JSON_INVALID", "body"),
    ("amount as Infinity", amount("-Infinity"), "JSON_INVALID", "body"),
    ("amount above int64", amount("9223372036854775808"), "JSON_INVALID", "amount.amount_minor"),
    ("amount far above", amount("1" + "0" * 30), "JSON_INVALID", "amount.amount_minor"),
    ("amount above any float", amount("1" + "0" * 400), "JSON_INVALID", "body"),
    ("amount with 5,000 digits", amount("1" * 5_000), "JSON_INVALID", "body"),
    ("amount with a leading zero", amount("0100"), "JSON_INVALID", "body"),
    ("no JSON", b"hello", "JSON_INVALID", "body"),
    ("cut off", b'{"amount":', "JSON_INVALID", "body"),
    ("two values", b"{}{}", "JSON_INVALID", "body"),
    ("a comment", b'{/* */"type":"purchase"}', "JSON_INVALID", "body"),
    ("broken UTF-8", b'{"subject":"\xff"}', "JSON_INVALID", "body"),
    ("a lone surrogate", b'{"subject":"\\ud800"}', "JSON_INVALID", "body"),
    ("a byte order mark", b"\xef\xbb\xbf{}", "JSON_INVALID", "body"),
    ("UTF-16", json.dumps(GOOD).encode("utf-16"), "JSON_INVALID", "body"),
    ("U+0000", order(subject="a\0b"), "JSON_INVALID", "subject"),
    ("a list", [GOOD], "JSON_INVALID", "body"),
    ("a string", "order", "JSON_INVALID", "body"),
    ("null", None, "JSON_INVALID", "body"),
    ("nested 60,000 deep", b"[" * 60_000, "JSON_INVALID", "body"),
    ("nested objects", b'{"a":' * 9_000 + b"1" + b"}" * 9_000, "JSON_INVALID", "body"),
    ("a name twice", b'{"type":"purchase","type":"recharge"}', "JSON_INVALID", "type"),
    ("a name twice inside", b'{"amount":{"a":1,"a":2}}', "JSON_INVALID", "a"),
    ("number for a string", order(subject=5), "JSON_INVALID", "subject"),
    ("string for an object", order(amount="1 USD"), "JSON_INVALID", "amount"),
    ("list for a map", order(metadata=[]), "JSON_INVALID", "metadata"),
    ("number in a map", order(metadata={"a": 1}), "JSON_INVALID", "metadata.a"),
    ("int32 above", order(expires_in_seconds=2**31), "JSON_INVALID", "expires_in_seconds"),
    ("unknown field", order(price=1), "JSON_FIELD_UNKNOWN", "price"),
    ("unknown inside", order(amount={**USD, "value": 1}), "JSON_FIELD_UNKNOWN", "amount.value"),
    ("camel case", {"merchantOrderNo": "n1"}, "JSON_FIELD_UNKNOWN", "merchantOrderNo"),
    ("request_id in the body", order(request_id="r"), "JSON_FIELD_UNKNOWN", "request_id"),
]


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [case[1:] for case in JSON_CASES],
    ids=[case[0] for case in JSON_CASES],
)
async def test_sending_another_json_than_the_contracts_is_refused(
    edge: Edge, body: Any, reason: str, field: str
) -> None:
    reply = await edge.post("/v1/orders", body)

    assert (reply.json["reason"], reply.json["field"]) == (reason, field)
    assert reply.status == 400
    assert (reply.json["outcome"], reply.json["retry"]) == ("NOT_EXECUTED", "NEVER")
    assert edge.behind.seen == []


VALIDATION_CASES: list[tuple[str, Any, str]] = [
    ("negative", order(amount={**USD, "amount_minor": -1}), "amount"),
    ("above 10^15", order(amount={**USD, "amount_minor": 10**15 + 1}), "amount.amount_minor"),
    ("int64 max", order(amount={**USD, "amount_minor": 2**63 - 1}), "amount.amount_minor"),
    ("no amount", {"merchant_order_no": "n1"}, "amount"),
    (
        "currency of two letters",
        order(amount={**USD, "currency_code": "US"}),
        "amount.currency_code",
    ),
    ("currency in small", order(amount={**USD, "currency_code": "usd"}), "amount.currency_code"),
    ("no number", {"amount": USD}, "merchant_order_no"),
    ("number with a space", order(merchant_order_no="a b"), "merchant_order_no"),
    ("long subject", order(subject="x" * 129), "subject"),
    ("user of another kind", order(user_id=IDS.new("trd")), "user_id"),
    ("too much metadata", order(metadata={str(i): "x" for i in range(21)}), "metadata"),
    ("expiry below zero", order(expires_in_seconds=-1), "expires_in_seconds"),
]


@pytest.mark.parametrize(
    ("body", "field"), [case[1:] for case in VALIDATION_CASES], ids=[c[0] for c in VALIDATION_CASES]
)
async def test_breaking_a_rule_of_the_contract_names_the_field(
    edge: Edge, body: Any, field: str
) -> None:
    reply = await edge.post("/v1/orders", body)

    assert (reply.status, reply.json["reason"]) == (400, "FIELD_INVALID")
    assert reply.json["field"] == field
    assert edge.behind.seen == []


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v1/orders?page_size=1.0", "page_size"),
        ("/v1/orders?page_size=%201", "page_size"),
        ("/v1/orders?page_size=1_0", "page_size"),
        ("/v1/orders?page_size=%D9%A1", "page_size"),
        ("/v1/orders?page_size=99999999999", "page_size"),
        ("/v1/orders?page_size=1&page_size=2", "page_size"),
        ("/v1/orders?page_token=%00", "page_token"),
        ("/v1/orders?page_token=%ff", "query"),
        ("/v1/orders?page_token", "query"),
        ("/v1/orders?" + "&".join(f"a{i}=1" for i in range(40)), "query"),
    ],
)
async def test_a_query_that_does_not_fit_is_refused(edge: Edge, target: str, field: str) -> None:
    reply = await edge.get(target)

    assert (reply.status, reply.json["reason"]) == (400, "JSON_INVALID")
    assert reply.json["field"] == field
    assert edge.behind.seen == []


async def test_a_query_that_nobody_knows_is_refused(edge: Edge) -> None:
    read = await edge.get("/v1/orders?limit=5")
    change = await edge.post("/v1/orders?type=recharge", GOOD)

    assert (read.json["reason"], read.json["field"]) == ("JSON_FIELD_UNKNOWN", "limit")
    assert (change.json["reason"], change.json["field"]) == ("JSON_FIELD_UNKNOWN", "type")
    assert edge.behind.seen == []


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/nothing",
        "//v1/orders",
        "/v1//orders",
        "/v1/orders/",
        "/v1/./orders",
        "/v1/orders/../orders",
        "/v1/orders/..",
        "/v1/orders/.",
        "/v1%2forders",
        "/v1/orders/trd_%2e%2e",
        "/v1/orders/%00",
        "/v1/ORDERS",
        "/v1/orders;x=1",
        "/v1/orders/" + "x" * 65,
        "/v1" + "/a" * 200,
        "/paymesh.trade.v1.TradeService/CreateOrder",
        "/v1/orders/{order_id}",
    ],
)
async def test_a_path_that_is_no_route_is_not_found(edge: Edge, target: str) -> None:
    reply = await edge.get(target)

    assert (reply.status, reply.json["reason"]) == (404, "ROUTE_NOT_FOUND")
    assert edge.behind.seen == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_a_method_that_the_path_has_not_is_refused_with_those_it_has(
    edge: Edge, method: str
) -> None:
    headers = edge.signer.sign(method, "/v1/orders", idempotency_key="k")

    reply = await edge.send(method, "/v1/orders", b"", headers)

    assert (reply.status, reply.json["reason"]) == (405, "METHOD_NOT_ALLOWED")
    assert reply.headers["allow"] == "GET, POST"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_a_body_of_another_type_is_refused(edge: Edge, headers: dict[str, str]) -> None:
    body = json.dumps(GOOD).encode()
    signed = edge.signer.sign("POST", "/v1/orders", body, idempotency_key="k")

    reply = await edge.send("POST", "/v1/orders", body, {**signed, **headers})

    assert (reply.status, reply.json["reason"]) == (415, "MEDIA_TYPE_UNSUPPORTED")
    assert edge.behind.seen == []


async def test_a_body_for_a_read_is_refused(edge: Edge) -> None:
    headers = edge.signer.sign("GET", "/v1/orders", b"{}")

    reply = await edge.send("GET", "/v1/orders", b"{}", headers)

    assert (reply.json["reason"], reply.json["field"]) == ("JSON_INVALID", "body")


# Bodies and heads.


async def test_the_largest_body_passes_and_one_byte_more_is_refused(edge: Edge) -> None:
    frame = len(json.dumps(order(subject="")).encode())
    fitting = json.dumps(order(subject="x" * (65_536 - frame))).encode()
    assert len(fitting) == 65_536

    passed = await edge.post("/v1/orders", fitting)
    refused = await edge.post("/v1/orders", fitting + b" ")

    assert passed.json["reason"] == "FIELD_INVALID"  # read, and then too long a subject
    assert (refused.status, refused.json["reason"]) == (413, "BODY_TOO_LARGE")
    assert refused.json["metadata"] == {"limit_bytes": "65536"}


async def test_a_body_that_says_it_is_huge_is_refused_unread(edge: Edge) -> None:
    reply = await edge.raw(
        b"POST /v1/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: 99999999999\r\n\r\n"
    )

    assert reply is not None
    assert (reply.status, reply.json["reason"]) == (413, "BODY_TOO_LARGE")
    assert reply.headers["connection"] == "close"


async def test_a_chunked_body_that_grows_too_large_is_refused(edge: Edge) -> None:
    head = b"POST /v1/orders HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"

    reply = await edge.raw(head, *[chunk] * 5)

    assert reply is not None
    assert (reply.status, reply.json["reason"]) == (413, "BODY_TOO_LARGE")


async def test_a_chunked_body_that_fits_is_read(edge: Edge) -> None:
    body = json.dumps(GOOD).encode()
    headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key=IDS.new("idk"))
    head = compose("GET", "/v1/orders", b"", {**headers, "Transfer-Encoding": "chunked"})

    reply = await edge.raw(
        head.replace(b"GET", b"POST", 1), b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )

    assert reply is not None
    assert reply.status == 200


async def test_a_longer_body_than_said_is_no_part_of_the_request(edge: Edge) -> None:
    body = json.dumps(GOOD).encode()
    headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key=IDS.new("idk"))
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(compose("POST", "/v1/orders", body, headers) + b"and more\r\n\r\n")

    answer, rest = await read_reply(reader), await read_reply(reader)

    writer.close()
    # What was whole is answered; a refusal of the rest must never stand in its place.
    assert answer is not None
    assert answer.status == 200
    assert rest is None


async def test_a_broken_chunk_reaches_nobody(edge: Edge) -> None:
    reply = await edge.raw(
        b"POST /v1/orders HTTP/1.1\r\nHost: edge\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"zz\r\n{}\r\n0\r\n\r\n",
    )

    assert reply is not None
    assert (reply.status, reply.json["reason"]) == (400, "MESSAGE_MALFORMED")
    assert edge.behind.seen == []


async def test_a_shorter_body_than_said_reaches_nobody(edge: Edge) -> None:
    reply = await edge.raw(
        b"POST /v1/orders HTTP/1.1\r\nHost: edge\r\nContent-Length: 50\r\n\r\n{}", half_close=True
    )

    assert reply is None or reply.status >= 400
    assert edge.behind.seen == []


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/orders HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"POST /v1/orders HTTP/1.1\r\nHost: e\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/orders HTTP/1.1\r\nHost: e\r\nContent-Length: x\r\n\r\n",
        (
            b"POST /v1/orders HTTP/1.1\r\nHost: e\r\nContent-Length: 2\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        b"POST /v1/orders HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: gzip, chunked, x\r\n\r\n",
        b"GET /v1/orders HTTP/9.9\r\n\r\n",
        b"GET \xff HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: e\r\n\r\n",
        b"CONNECT edge:443 HTTP/1.1\r\nHost: e\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nX\0: a\r\n\r\n",
    ],
)
async def test_bytes_that_are_no_sound_request_never_cause_a_500(edge: Edge, raw: bytes) -> None:
    reply = await edge.raw(raw, half_close=True)

    assert reply is None or 400 <= reply.status < 500
    assert edge.behind.seen == []


async def test_a_head_without_end_is_cut_off(edge: Edge) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"GET /v1/orders HTTP/1.1\r\nX: ")
    reply, written = None, 0
    try:
        while written < 10_000_000:
            writer.write(b"a" * 10_000)
            await writer.drain()
            written += 10_000
            await asyncio.sleep(0)
        reply = await read_reply(reader)
    except ConnectionError:
        pass
    finally:
        writer.close()

    assert written < 10_000_000 or reply is not None

    assert reply is None or reply.status == 400


async def test_a_head_of_too_many_headers_is_refused(edge: Edge) -> None:
    many = b"".join(b"X-%d: %b\r\n" % (i, b"a" * 100) for i in range(400))

    reply = await edge.raw(b"GET /v1/orders HTTP/1.1\r\n" + many + b"\r\n")

    assert reply is None or reply.status == 400


@pytest.mark.parametrize(
    "name",
    ["Idempotency-Key", "Signature", "Signature-Input", "Content-Digest", "Content-Type"],
)
async def test_a_decisive_header_given_twice_is_refused(edge: Edge, name: str) -> None:
    body = json.dumps(GOOD).encode()
    headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key="k1")
    again = f"{name.lower()}: {headers[name]}\r\n".encode()

    reply = await edge.send("POST", "/v1/orders", body, headers, again)

    assert (reply.status, reply.json["reason"]) == (400, "FIELD_INVALID")
    assert reply.json["field"] == name.lower()
    assert edge.behind.seen == []


@pytest.mark.parametrize("key", ["", "k" * 65, "with space", "ü"])
async def test_an_idempotency_key_of_another_form_is_refused(edge: Edge, key: str) -> None:
    body = json.dumps(GOOD).encode()
    headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key="good")

    reply = await edge.send("POST", "/v1/orders", body, {**headers, "Idempotency-Key": key})

    reason = "FIELD_INVALID" if key else "IDEMPOTENCY_KEY_MISSING"
    assert (reply.status, reply.json["reason"]) == (400, reason)


async def test_a_change_without_an_idempotency_key_is_refused(edge: Edge) -> None:
    body = json.dumps(GOOD).encode()
    headers = edge.signer.sign("POST", "/v1/orders", body)

    reply = await edge.send("POST", "/v1/orders", body, headers)

    assert (reply.status, reply.json["reason"]) == (400, "IDEMPOTENCY_KEY_MISSING")
    assert edge.behind.seen == []
