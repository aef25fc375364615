"""What the edge refuses, each with its reason."""

from __future__ import annotations

from common.errors import Outcome, PaymeshError, Retry


class SignatureMissingError(PaymeshError):
    """The request carries no usable signature: {missing} is missing."""

    reason = "SIGNATURE_MISSING"


class SignatureInvalidError(PaymeshError):
    """The signature does not fit the request and the key: {rule}."""

    reason = "SIGNATURE_INVALID"


class RequestExpiredError(PaymeshError):
    """The signature was made more than {window_seconds} seconds from now."""

    reason = "REQUEST_EXPIRED"


class NonceReplayedError(PaymeshError):
    """The nonce was used before; every request is signed anew."""

    reason = "NONCE_REPLAYED"


class DigestMismatchError(PaymeshError):
    """Content-Digest does not fit the body."""

    reason = "DIGEST_MISMATCH"


class IdempotencyKeyMissingError(PaymeshError):
    """A request that changes something needs an Idempotency-Key."""

    reason = "IDEMPOTENCY_KEY_MISSING"


class IdempotencyKeyInUseError(PaymeshError):
    """A request with the same Idempotency-Key is still being worked on."""

    reason = "IDEMPOTENCY_KEY_IN_USE"
    outcome = Outcome.UNKNOWN
    retry = Retry.AFTER_DELAY


class RateLimitedError(PaymeshError):
    """The merchant sends more than {limit_per_second} requests per second."""

    reason = "RATE_LIMITED"
    retry = Retry.AFTER_DELAY


class JsonInvalidError(PaymeshError):
    """The request is not what the contract asks for: {field} {rule}."""

    reason = "JSON_INVALID"


class JsonFieldUnknownError(PaymeshError):
    """The contract knows no field {field} here."""

    reason = "JSON_FIELD_UNKNOWN"


class RouteNotFoundError(PaymeshError):
    """No route has this path."""

    reason = "ROUTE_NOT_FOUND"


class MethodNotAllowedError(PaymeshError):
    """The path takes {allow} only."""

    reason = "METHOD_NOT_ALLOWED"


class MediaTypeUnsupportedError(PaymeshError):
    """The body must be application/json, in UTF-8 and not encoded."""

    reason = "MEDIA_TYPE_UNSUPPORTED"


class BodyTooLargeError(PaymeshError):
    """The body is larger than {limit_bytes} bytes."""

    reason = "BODY_TOO_LARGE"


class MerchantSuspendedError(PaymeshError):
    """The merchant {merchant_id} may not do business now."""

    reason = "MERCHANT_SUSPENDED"


class BodyLateError(PaymeshError):
    """The body did not arrive in time; nothing was begun."""

    reason = "DEADLINE_EXCEEDED"
    retry = Retry.SAME_ID
