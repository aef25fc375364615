"""Failures on the wire and back: every reason, outcome and retry keeps its meaning."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from paymesh.error.v1 import ErrorReason
from paymesh.mesh import errors as wire

from common.errors import (
    CancelledError,
    FieldInvalidError,
    InternalError,
    Outcome,
    OverloadedError,
    PaymeshError,
    RemoteError,
    Retry,
)
from common.mesh.status import CallStatus, as_remote, error_of, rpc_error_of, status_of


def there_and_back(error: BaseException) -> RemoteError:
    """Return what the caller sees when a servicer raises `error`."""
    return error_of(rpc_error_of(status_of(error)))


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("retry", list(Retry))
def test_travelling_keeps_outcome_and_retry(outcome: Outcome, retry: Retry) -> None:
    seen = there_and_back(
        OverloadedError(outcome=outcome, retry=retry, retry_after_seconds=1.5, limit=7)
    )
    assert (seen.outcome, seen.retry) == (outcome, retry)
    assert seen.retry_after_seconds == 1.5
    assert seen.metadata == {"limit": "7"}
    assert seen.remote_reason == "OVERLOADED"


def test_travelling_keeps_every_known_reason() -> None:
    for name in ErrorReason.keys():  # noqa: SIM118 - an enum
        kind = type("AnError", (PaymeshError,), {"__doc__": "Words.", "reason": name[13:]})
        if name != "ERROR_REASON_UNSPECIFIED":
            seen = there_and_back(kind())
            assert (seen.remote_reason, seen.message) == (name[13:], "Words.")


def test_reason_that_the_reader_does_not_know_counts_as_unknown() -> None:
    failure = wire.Failure("FROM_THE_FUTURE", "what", wire.NOT_EXECUTED, "NEVER")
    error = wire.rpc_error(grpc.StatusCode.FAILED_PRECONDITION, failure)
    assert wire.decode(error).outcome == wire.UNKNOWN


def test_outcome_that_the_reader_does_not_know_counts_as_unknown() -> None:
    failure = wire.Failure("NOT_FOUND", "what", "PERHAPS", "SOMETIME")
    seen = error_of(wire.rpc_error(grpc.StatusCode.NOT_FOUND, failure))
    assert (seen.outcome, seen.retry) == (Outcome.UNKNOWN, Retry.NEVER)


@pytest.mark.parametrize(
    ("code", "reason", "outcome"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", wire.UNKNOWN),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", wire.UNKNOWN),
        (grpc.StatusCode.CANCELLED, "CANCELLED", wire.UNKNOWN),
        (grpc.StatusCode.UNIMPLEMENTED, "METHOD_UNKNOWN", wire.NOT_EXECUTED),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "INTERNAL", wire.UNKNOWN),
        (grpc.StatusCode.ABORTED, "INTERNAL", wire.UNKNOWN),
    ],
)
@pytest.mark.parametrize("details", [b"", b"\xff\xff", b"\x08\x05\x12\x01x"])
def test_failure_without_words_of_ours_is_unknown_unless_it_surely_is_not(
    code: grpc.StatusCode, reason: str, outcome: str, details: bytes
) -> None:
    seen = wire.decode(rpc_error_of(CallStatus(code, "text", details)))
    assert (seen.reason, seen.outcome, seen.message) == (reason, outcome, "text")


def test_stray_exception_says_internal_and_nothing_else() -> None:
    seen = there_and_back(KeyError("card 4111111111111111"))
    assert seen.remote_reason == "INTERNAL"
    assert seen.message == InternalError().message
    assert seen.outcome is Outcome.UNKNOWN


def test_cancelled_servicer_says_cancelled() -> None:
    assert there_and_back(asyncio.CancelledError()).remote_reason == CancelledError.reason


def test_field_travels_in_bad_request_too() -> None:
    status = status_of(FieldInvalidError(field="amount.amount_minor", rule="above zero"))
    assert status.code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.message == "amount.amount_minor: above zero."
    assert status.details.count(b"amount.amount_minor") >= 3


def test_failure_of_a_third_service_keeps_its_outcome_only_where_nothing_changes() -> None:
    error = RemoteError(
        remote_reason="NOT_FOUND",
        remote_message="none",
        outcome=Outcome.NOT_EXECUTED,
        retry=Retry.NEVER,
    )
    assert status_of(error).outcome is Outcome.UNKNOWN
    assert status_of(error, changes_nothing=True).outcome is Outcome.NOT_EXECUTED


def test_metadata_with_any_key_arrives() -> None:
    failure = wire.Failure(
        "NOT_FOUND", "m", wire.EXECUTED, "NEVER", {"self": "a", "remote_reason": "b", "x": "c"}
    )
    seen = error_of(wire.rpc_error(grpc.StatusCode.NOT_FOUND, failure))
    assert seen.metadata == {"x": "c"}
    assert seen.outcome is Outcome.EXECUTED


def test_error_that_kept_a_call_from_leaving_looks_like_one_of_the_call() -> None:
    seen = as_remote(OverloadedError(limit=1, retry_after_seconds=2))
    assert (seen.remote_reason, seen.outcome) == ("OVERLOADED", Outcome.NOT_EXECUTED)
    assert seen.metadata == {"limit": "1"}
    assert as_remote(seen) is seen
