"""A merchant's first order: a key is registered, a signed request makes an order, another reads it.

Run beside `make up`:

    source .local/up/environment && .venv/bin/python docs/examples/signed_rest_call.py

The first part is the operator's, who registers the merchant and the public half of its key; the
second is all that a merchant's program needs: `paymesh.edge` and any HTTP client.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import urllib.request
from typing import Any

from paymesh.edge import RequestSigner, generate_key
from paymesh.member.v1 import AddMerchantKeyRequest, MemberServiceStub, RegisterMerchantRequest

from services.cli.operator import operate


async def register() -> RequestSigner:
    """Register a merchant with a key, as its operator; the private half stays with the merchant."""
    private_key, public_key = generate_key()
    async with operate() as operator:
        members = operator.stub(MemberServiceStub, "member")
        number = f"example-{secrets.token_hex(4)}"
        answer = await members.RegisterMerchant(
            RegisterMerchantRequest(
                request_id=number, merchant_no=number, name="Example", currency_codes=["USD"]
            )
        )
        added = await members.AddMerchantKey(
            AddMerchantKeyRequest(
                request_id=f"{number}-key",
                merchant_id=answer.merchant.id,
                public_key=public_key,
                mode="LIVE",
            )
        )
    return RequestSigner(added.key.id, private_key)


def send(signer: RequestSigner, method: str, target: str, body: dict[str, Any] | None) -> Any:
    """Send one signed request to the edge and return the JSON of its answer."""
    payload = b"" if body is None else json.dumps(body).encode()
    # The same key again would repeat the answer, not the order.
    idempotency_key = secrets.token_urlsafe(12) if payload else None
    headers = signer.sign(method, target, payload, idempotency_key=idempotency_key)
    url = f"http://127.0.0.1:{os.environ['PAYMESH_EDGE_HTTP_PORT']}{target}"
    request = urllib.request.Request(url, payload or None, headers, method=method)
    with urllib.request.urlopen(request) as response:  # noqa: S310 - our own edge
        return json.load(response)


def main() -> None:
    """Make an order of 12.30 USD, read it again, print both answers."""
    signer = asyncio.run(register())
    order = {
        "merchant_order_no": "first-order",
        "amount": {"currency_code": "USD", "amount_minor": 1230},
        "subject": "Two CDs",
    }
    made = send(signer, "POST", "/v1/orders", order)
    print(json.dumps(made, indent=2))
    read = send(signer, "GET", f"/v1/orders/{made['order']['id']}", None)
    print(json.dumps(read, indent=2))


if __name__ == "__main__":
    main()
