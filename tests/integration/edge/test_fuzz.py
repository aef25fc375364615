"""Random bytes at the door: refused one way or another, never a 500, never a hang."""

from __future__ import annotations

import random

import pytest

from tests.integration.edge.conftest import IDS, Edge, compose

SEEDS = range(40)


@pytest.mark.parametrize("seed", SEEDS)
async def test_random_bodies_and_broken_requests_are_refused(edge: Edge, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - no secret
    body = b'{"merchant_order_no":"n1","amount":{"currency_code":"USD","amount_minor":5}}'
    signed_body = bytearray(body)
    for _ in range(chance.randint(1, 6)):
        signed_body[chance.randrange(len(signed_body))] = chance.randrange(256)
    reply = await edge.post("/v1/orders", bytes(signed_body))
    assert reply.status in (200, 400)

    headers = edge.signer.sign("POST", "/v1/orders", body, idempotency_key=IDS.new("idk"))
    raw = bytearray(compose("POST", "/v1/orders", body, headers))
    for _ in range(chance.randint(1, 8)):
        raw[chance.randrange(len(raw))] = chance.randrange(256)
    answer = await edge.raw(bytes(raw), half_close=True)
    assert answer is None or answer.status < 500 or answer.status == 501

    noise = await edge.raw(chance.randbytes(chance.randint(1, 2_000)), half_close=True)
    assert noise is None or noise.status < 500
