"""Errors as part of the API: a typed reason, an exact message, and what the call did.

A service's `errors.py` subclasses `PaymeshError`; the class docstring is the message, with the
public metadata in braces. No message or metadata value holds a secret or a personal datum.
"""

from __future__ import annotations

import enum
from typing import ClassVar


class Outcome(enum.StrEnum):
    """What a failed call did. Retry and failover look at this and at nothing else."""

    NOT_EXECUTED = "NOT_EXECUTED"
    UNKNOWN = "UNKNOWN"
    EXECUTED = "EXECUTED"


class Retry(enum.StrEnum):
    """What the caller may do next."""

    NEVER = "NEVER"
    SAME_ID = "SAME_ID"
    NEW_ID = "NEW_ID"
    AFTER_DELAY = "AFTER_DELAY"


class PaymeshError(Exception):
    """Something inside paymesh failed."""

    reason: ClassVar[str] = "INTERNAL"
    """Name in `paymesh.error.v1.ErrorReason`, without its prefix."""

    outcome: Outcome = Outcome.NOT_EXECUTED
    retry: Retry = Retry.NEVER

    def __init__(
        self,
        *,
        outcome: Outcome | None = None,
        retry: Retry | None = None,
        retry_after_seconds: float | None = None,
        **metadata: object,
    ) -> None:
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_after_seconds = retry_after_seconds
        if outcome is not None:
            self.outcome = outcome
        if retry is not None:
            self.retry = retry
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The first line of the class docstring, filled with the metadata."""
        template = (type(self).__doc__ or "").strip().splitlines()[0]
        return template.format_map(_Missing(self.metadata))

    @property
    def field(self) -> str | None:
        """Path of the offending field, where one is to blame."""
        return self.metadata.get("field")


class _Missing(dict[str, str]):
    """Leaves a brace that has no value readable instead of failing inside an error."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


class RemoteError(PaymeshError):
    """A call to another service failed: {remote_message}"""

    def __init__(
        self,
        *,
        remote_reason: str,
        remote_message: str,
        outcome: Outcome,
        retry: Retry,
        retry_after_seconds: float | None = None,
        **metadata: object,
    ) -> None:
        self.remote_reason = remote_reason
        self.remote_message = remote_message
        super().__init__(
            outcome=outcome, retry=retry, retry_after_seconds=retry_after_seconds, **metadata
        )

    @property
    def message(self) -> str:
        """The words of the service that failed."""
        return self.remote_message


class InternalError(PaymeshError):
    """The service broke a promise of its own; its log has the cause."""

    reason = "INTERNAL"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class FieldInvalidError(PaymeshError):
    """{field}: {rule}."""

    reason = "FIELD_INVALID"


class UnauthenticatedError(PaymeshError):
    """The call carries no credentials that prove who makes it."""

    reason = "UNAUTHENTICATED"


class PermissionDeniedError(PaymeshError):
    """The caller may not call {method}."""

    reason = "PERMISSION_DENIED"


class OverloadedError(PaymeshError):
    """More calls are in flight than the service takes; nothing was begun."""

    reason = "OVERLOADED"
    retry = Retry.AFTER_DELAY


class DeadlineExceededError(PaymeshError):
    """The deadline passed before the call was answered."""

    reason = "DEADLINE_EXCEEDED"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class UnavailableError(PaymeshError):
    """The service {target} could not be reached or went away."""

    reason = "UNAVAILABLE"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class CancelledError(PaymeshError):
    """The caller gave up before the call was answered."""

    reason = "CANCELLED"
    outcome = Outcome.UNKNOWN
    retry = Retry.SAME_ID


class NotFoundError(PaymeshError):
    """There is no {resource} with this id."""

    reason = "NOT_FOUND"


class VersionConflictError(PaymeshError):
    """The resource has version {version}, not {expected}."""

    reason = "VERSION_CONFLICT"


class StateConflictError(PaymeshError):
    """The {resource} is {state}, which does not allow this."""

    reason = "STATE_CONFLICT"


class IdConflictError(PaymeshError):
    """The id was used before with another value of {field}."""

    reason = "ID_CONFLICT"


class IdOutOfWindowError(PaymeshError):
    """The time inside the id is outside the window in which ids are taken."""

    reason = "ID_OUT_OF_WINDOW"


class IdMalformedError(PaymeshError):
    """{field} has not the form of an id of its kind."""

    reason = "ID_MALFORMED"


class MethodUnknownError(PaymeshError):
    """The service knows no method {method}."""

    reason = "METHOD_UNKNOWN"


class MessageTooLargeError(PaymeshError):
    """A message is larger than {limit_bytes} bytes."""

    reason = "MESSAGE_TOO_LARGE"


class MessageMalformedError(PaymeshError):
    """The bytes are no message of the contract."""

    reason = "MESSAGE_MALFORMED"


class PageTokenInvalidError(PaymeshError):
    """The page token was not issued by this list."""

    reason = "PAGE_TOKEN_INVALID"


class CurrencyUnknownError(PaymeshError):
    """There is no currency {currency_code}."""

    reason = "CURRENCY_UNKNOWN"


class AmountOutOfRangeError(PaymeshError):
    """{field} is zero, negative or above 10^15 minor units."""

    reason = "AMOUNT_OUT_OF_RANGE"
