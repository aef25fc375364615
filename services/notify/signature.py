"""Standard Webhooks v1: secrets, signatures, headers.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime
from typing import Final

SECRET_BYTES: Final = 32
"""The specification asks for 24 to 64."""

_PREFIX: Final = "whsec_"
_USER_AGENT: Final = "paymesh-webhooks/1"


def secret_text(key: bytes) -> str:
    """Return a secret as merchants keep it."""
    return _PREFIX + base64.b64encode(key).decode()


def sign(key: bytes, webhook_id: str, timestamp: int, body: bytes) -> str:
    """Return the `webhook-signature` of a body sent at `timestamp` (Unix seconds)."""
    signed = f"{webhook_id}.{timestamp}.".encode() + body
    digest = hmac.digest(key, signed, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def headers_of(
    key: bytes, webhook_id: str, biz_trace_id: str, at: datetime, body: bytes
) -> dict[str, str]:
    """Return the headers of one attempt; its time is signed, so each has a signature of its own."""
    timestamp = int(at.timestamp())
    return {
        "content-type": "application/json",
        "user-agent": _USER_AGENT,
        "webhook-id": webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(key, webhook_id, timestamp, body),
        "paymesh-biz-trace-id": biz_trace_id,
    }
