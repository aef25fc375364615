"""Errors as merchants see them: RFC 9457 problem details, and nothing of the inside.

What concerns the merchant's request is passed on with its metadata. What concerns the platform's
own parts (which service is away, who may call whom) is said in fixed words.
"""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Final

import orjson

from common.errors import Outcome, PaymeshError, RemoteError, Retry
from common.reasons import CODES, codes_of

CONTENT_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:paymesh:error:"

_RETRY_AFTER_SECONDS: Final = 1.0
_INSIDE: Final = {
    "INTERNAL": "Something inside failed. Repeat with the same key to learn what became of it.",
    "UNAVAILABLE": "A part of the platform is away for the moment.",
    "DEADLINE_EXCEEDED": "The request was not finished in time.",
    "CANCELLED": "The request was given up before it was finished.",
    "OVERLOADED": "Too many requests are being served at the moment.",
    "PERMISSION_DENIED": "This key may not do this.",
    "UNAUTHENTICATED": "The request carries no credentials that prove who makes it.",
    "METHOD_UNKNOWN": "This is not offered at the moment.",
    "MESSAGE_MALFORMED": "The request could not be understood.",
    "MESSAGE_TOO_LARGE": "The request or its answer is too large.",
}


class Problem:
    """An error, ready to be sent."""

    __slots__ = ("body", "headers", "reason", "retry", "status")

    def __init__(self, error: PaymeshError, request_id: str) -> None:
        reason = error.remote_reason if isinstance(error, RemoteError) else error.reason
        outcome, retry = error.outcome, error.retry
        if reason not in CODES:
            # A newer service's word: it may have happened.
            reason, outcome, retry = "INTERNAL", Outcome.UNKNOWN, Retry.SAME_ID
        self.reason = reason
        self.retry = retry
        self.status = codes_of(reason).http
        phrase = HTTPStatus(self.status).phrase if self.status != 499 else "Cancelled"
        problem: dict[str, object] = {
            "type": TYPE_PREFIX + reason,
            "title": phrase,
            "status": self.status,
            "detail": _INSIDE.get(reason, error.message),
            "reason": reason,
            "outcome": outcome,
            "retry": retry,
            "request_id": request_id,
        }
        metadata = {} if reason in _INSIDE else dict(error.metadata)
        field = metadata.pop("field", None)
        if field is not None:
            problem["field"] = field
        if metadata:
            problem["metadata"] = metadata
        self.body = orjson.dumps(problem)
        self.headers: dict[str, str] = {}
        if retry is Retry.AFTER_DELAY:
            seconds = error.retry_after_seconds or _RETRY_AFTER_SECONDS
            self.headers["retry-after"] = str(max(1, math.ceil(seconds)))
        if reason == "METHOD_NOT_ALLOWED":
            self.headers["allow"] = error.metadata.get("allow", "")
