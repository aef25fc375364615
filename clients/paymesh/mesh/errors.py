"""Failures of calls, read and written: reason, outcome and what to do next.

The same shape on every way that a call can travel: `google.rpc.Status` with `ErrorInfo` in the
trailing metadata `grpc-status-details-bin`. A client looks at `outcome` before it repeats a call,
never at the status code alone: UNAVAILABLE does not say whether money moved.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from paymesh.error.v1 import ErrorReason

DOMAIN: Final = "paymesh"
"""`ErrorInfo.domain` of every reason of ours."""

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailing metadata that holds the serialised `google.rpc.Status`."""

NOT_EXECUTED: Final = "NOT_EXECUTED"
UNKNOWN: Final = "UNKNOWN"
EXECUTED: Final = "EXECUTED"

CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
"""gRPC status codes by their numbers."""

_WITHOUT_DETAILS: Final[Mapping[grpc.StatusCode, tuple[str, str, str]]] = {
    # What gRPC itself says, without a word of ours: reason, outcome, retry.
    grpc.StatusCode.UNIMPLEMENTED: ("METHOD_UNKNOWN", NOT_EXECUTED, "NEVER"),
    grpc.StatusCode.UNAVAILABLE: ("UNAVAILABLE", UNKNOWN, "SAME_ID"),
    grpc.StatusCode.DEADLINE_EXCEEDED: ("DEADLINE_EXCEEDED", UNKNOWN, "SAME_ID"),
    grpc.StatusCode.CANCELLED: ("CANCELLED", UNKNOWN, "SAME_ID"),
    grpc.StatusCode.UNAUTHENTICATED: ("UNAUTHENTICATED", NOT_EXECUTED, "NEVER"),
    grpc.StatusCode.PERMISSION_DENIED: ("PERMISSION_DENIED", NOT_EXECUTED, "NEVER"),
}
_ANYTHING_ELSE: Final = ("INTERNAL", UNKNOWN, "SAME_ID")

_KNOWN_REASONS: Final = frozenset(
    name.removeprefix("ERROR_REASON_")
    for name in ErrorReason.keys()  # noqa: SIM118 - an enum
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed and what it did."""

    reason: str
    """Name in `paymesh.error.v1.ErrorReason`, without its prefix."""
    message: str
    outcome: str
    """NOT_EXECUTED, UNKNOWN or EXECUTED."""
    retry: str
    """NEVER, SAME_ID, NEW_ID or AFTER_DELAY."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the reason says beside outcome and retry: field, rule, limit …"""
    retry_after_seconds: float | None = None


def decode(error: grpc.RpcError) -> Failure:
    """Return what a failed call says; an error without details of ours counts as UNKNOWN."""
    code = error.code()
    message = str(error.details() or "")
    trailing = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
    for key, value in trailing:
        if key == DETAILS_KEY and isinstance(value, bytes):
            failure = decode_details(value, message)
            if failure is not None:
                return failure
    reason, outcome, retry = _WITHOUT_DETAILS.get(code, _ANYTHING_ELSE)
    return Failure(reason, message or code.name, outcome, retry)


def decode_details(details: bytes, message: str) -> Failure | None:
    """Return what a serialised `google.rpc.Status` says; None when it holds no reason of ours."""
    try:
        status = status_pb2.Status.FromString(details)
    except DecodeError:
        return None
    info = error_details_pb2.ErrorInfo()
    delay = error_details_pb2.RetryInfo()
    found = False
    retry_after: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            found = detail.Unpack(info) and info.domain == DOMAIN
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) and detail.Unpack(delay):
            retry_after = delay.retry_delay.seconds + delay.retry_delay.nanos / 1e9
    if not found:
        return None
    metadata = dict(info.metadata)
    reason = info.reason.removeprefix("ERROR_REASON_")
    outcome = metadata.pop("outcome", UNKNOWN)
    if reason not in _KNOWN_REASONS or outcome not in (NOT_EXECUTED, EXECUTED):
        outcome = UNKNOWN
    return Failure(
        reason=reason,
        message=status.message or message,
        outcome=outcome,
        retry=metadata.pop("retry", "NEVER"),
        metadata=metadata,
        retry_after_seconds=retry_after,
    )


def encode_details(
    code: grpc.StatusCode, failure: Failure, fields: Iterable[tuple[str, str]] = ()
) -> bytes:
    """Return the serialised `google.rpc.Status` of a failure.

    `fields` are (path, rule) of every field that breaks a rule, for `BadRequest`.
    """
    status = status_pb2.Status(code=code.value[0], message=failure.message)
    info = error_details_pb2.ErrorInfo(reason=failure.reason, domain=DOMAIN)
    info.metadata.update(failure.metadata)
    info.metadata["outcome"] = failure.outcome
    info.metadata["retry"] = failure.retry
    status.details.add().Pack(info)
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=path, description=rule)
        for path, rule in fields
    ]
    if violations:
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    if failure.retry_after_seconds is not None:
        delay = error_details_pb2.RetryInfo()
        delay.retry_delay.FromNanoseconds(int(failure.retry_after_seconds * 1e9))
        status.details.add().Pack(delay)
    return bytes(status.SerializeToString())


def rpc_error(code: grpc.StatusCode, failure: Failure) -> grpc.aio.AioRpcError:
    """Return the error that a call of plain gRPC would raise for this failure."""
    return grpc.aio.AioRpcError(
        code,
        grpc.aio.Metadata(),
        grpc.aio.Metadata((DETAILS_KEY, encode_details(code, failure))),
        failure.message,
        None,
    )


def unavailable(target: str, outcome: str) -> grpc.aio.AioRpcError:
    """Return the error for a peer that is away; `outcome` says whether the call had left."""
    return rpc_error(
        grpc.StatusCode.UNAVAILABLE,
        Failure(
            "UNAVAILABLE",
            f"The service {target} could not be reached or went away.",
            outcome,
            "SAME_ID",
            {"target": target},
        ),
    )


def overloaded(limit: int) -> grpc.aio.AioRpcError:
    """Return the error for a call that was refused because too many are in flight."""
    return rpc_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        Failure(
            "OVERLOADED",
            "More calls are in flight than the channel takes; nothing was begun.",
            NOT_EXECUTED,
            "AFTER_DELAY",
            {"limit": str(limit)},
        ),
    )


def deadline_exceeded(outcome: str) -> grpc.aio.AioRpcError:
    """Return the error for a call whose time is over."""
    return rpc_error(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        Failure(
            "DEADLINE_EXCEEDED",
            "The deadline passed before the call was answered.",
            outcome,
            "SAME_ID",
        ),
    )


def message_too_large(limit_bytes: int, outcome: str) -> grpc.aio.AioRpcError:
    """Return the error for a message above the peer's limit."""
    return rpc_error(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        Failure(
            "MESSAGE_TOO_LARGE",
            f"A message is larger than {limit_bytes} bytes.",
            outcome,
            "NEVER",
            {"limit_bytes": str(limit_bytes)},
        ),
    )


def malformed(outcome: str) -> grpc.aio.AioRpcError:
    """Return the error for bytes that are no message of the contract."""
    return rpc_error(
        grpc.StatusCode.INTERNAL,
        Failure("MESSAGE_MALFORMED", "The bytes are no message of the contract.", outcome, "NEVER"),
    )
