"""What a failure looks like on the wire, and back: PaymeshError and `google.rpc.Status`."""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import grpc
import grpc.aio
from paymesh.mesh import errors as wire

from common.errors import (
    CancelledError,
    InternalError,
    Outcome,
    PaymeshError,
    RemoteError,
    Retry,
)
from common.reasons import codes_of


class CallStatus(NamedTuple):
    """How a call that failed is answered."""

    code: grpc.StatusCode
    message: str
    details: bytes = b""
    """Serialised `google.rpc.Status`; empty when there is nothing to add to code and message."""
    outcome: str = Outcome.UNKNOWN
    reason: str = ""


class AbortedCallError(Exception):
    """A servicer ended its call with `context.abort`."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status.message)
        self.status = status


_RETRIES: Final = {retry.value: retry for retry in Retry}
_OUTCOMES: Final = {outcome.value: outcome for outcome in Outcome}


def status_of(error: BaseException, *, changes_nothing: bool = False) -> CallStatus:
    """Return the answer for an exception that left a servicer.

    An exception that is none of ours says INTERNAL and not a word of its own. A failed call to
    another service that nobody handled keeps its reason, but NOT_EXECUTED becomes UNKNOWN: what
    the other service did not do says nothing about what this one had done before it asked. Only
    for a method that changes nothing (`changes_nothing`) it stays.
    """
    if isinstance(error, AbortedCallError):
        return error.status
    if isinstance(error, asyncio.CancelledError):
        error = CancelledError()
    if not isinstance(error, PaymeshError):
        error = InternalError()
    reason, outcome = error.reason, error.outcome
    if isinstance(error, RemoteError):
        reason = error.remote_reason
        if outcome is Outcome.NOT_EXECUTED and not changes_nothing:
            outcome = Outcome.UNKNOWN
    failure = wire.Failure(
        reason=reason,
        message=error.message,
        outcome=outcome,
        retry=error.retry,
        metadata=error.metadata,
        retry_after_seconds=error.retry_after_seconds,
    )
    code = codes_of(reason).grpc
    details = wire.encode_details(code, failure, _violations_of(error))
    return CallStatus(code, error.message, details, outcome, reason)


def _violations_of(error: PaymeshError) -> tuple[tuple[str, str], ...]:
    found: tuple[tuple[str, str], ...] = getattr(error, "violations", ())
    if found or error.field is None:
        return found
    return ((error.field, error.metadata.get("rule", error.message)),)


def error_of(failed: grpc.RpcError) -> RemoteError:
    """Return the error of ours for a call that failed on any way."""
    failure = wire.decode(failed)
    return RemoteError(
        remote_reason=failure.reason,
        remote_message=failure.message,
        outcome=_OUTCOMES.get(failure.outcome, Outcome.UNKNOWN),
        retry=_RETRIES.get(failure.retry, Retry.NEVER),
        retry_after_seconds=failure.retry_after_seconds,
        **{key: value for key, value in failure.metadata.items() if key not in _TAKEN},
    )


def as_remote(error: PaymeshError) -> RemoteError:
    """Return an error that kept a call from leaving as one of the call: callers see one kind."""
    if isinstance(error, RemoteError):
        return error
    return RemoteError(
        remote_reason=error.reason,
        remote_message=error.message,
        outcome=error.outcome,
        retry=error.retry,
        retry_after_seconds=error.retry_after_seconds,
        **{key: value for key, value in error.metadata.items() if key not in _TAKEN},
    )


_TAKEN: Final = frozenset(
    {"remote_reason", "remote_message", "outcome", "retry", "retry_after_seconds", "self"}
)
"""Names that a metadata key must not have, as they are RemoteError's own."""


def rpc_error_of(
    status: CallStatus, trailing: tuple[tuple[str, str | bytes], ...] = ()
) -> grpc.aio.AioRpcError:
    """Return the error that plain gRPC would raise on the caller's side for this answer."""
    details = ((wire.DETAILS_KEY, status.details),) if status.details else ()
    return grpc.aio.AioRpcError(
        status.code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*trailing, *details),
        status.message,
        None,
    )
