"""Lets a merchant do business, stops it, or ends it."""

from __future__ import annotations

from dataclasses import dataclass

from common.audit import AuditEntry, digest_of, require_role
from common.context import CallContext
from common.db.history import cause_of_request
from common.errors import IdConflictError, NotFoundError, Retry, StateConflictError
from services.member.domain import Merchant, Status, may_move
from services.member.flows.parts import Parts
from services.member.flows.register_merchant import OPERATOR, history_of
from services.member.store import ChangedMeanwhileError

_TRIES = 5


@dataclass(frozen=True, slots=True)
class StatusChange:
    """What an operator asks for."""

    request_id: str
    merchant_id: str
    status: Status
    reason: str


async def set_merchant_status(parts: Parts, asked: StatusChange, call: CallContext) -> Merchant:
    """Return the merchant after the change; a repeat gets the merchant as it is.

    Raises:
        PermissionDeniedError: not an operator.
        NotFoundError: no such merchant.
        IdConflictError: the request's id asked for something else.
        StateConflictError: the merchant's status does not allow it.
    """
    principal = call.principal
    role = require_role(principal, OPERATOR)
    for _ in range(_TRIES):
        merchant = await parts.store.find_merchant(principal.tenant_id, asked.merchant_id)
        before = await parts.store.find_status_change(principal.tenant_id, asked.request_id)
        if before is not None:
            _check_same(before, asked)
        if merchant is None:
            raise NotFoundError(resource="merchant", id=asked.merchant_id)
        if before is not None:
            return merchant
        if not may_move(merchant.status, asked.status):
            raise StateConflictError(resource="merchant", state=merchant.status)
        now = parts.clock.now()
        version = merchant.version + 1
        audit = AuditEntry(
            principal=principal,
            role=role,
            action="merchant.set_status",
            subject=f"merchant {merchant.id}",
            reason=asked.reason,
            at=now,
            before_digest=digest_of(merchant.status),
            after_digest=digest_of(asked.status),
        )
        history = history_of(
            merchant,
            merchant.status,
            asked.status,
            version,
            call,
            now,
            reason="operator",
            cause=cause_of_request(asked.request_id),
        )
        try:
            moved = await parts.store.change_merchant(
                merchant, asked.status, asked.request_id, history, audit
            )
        except ChangedMeanwhileError:
            continue
        if moved is not None:
            return moved
    raise StateConflictError(
        resource="merchant", state="changing", retry=Retry.SAME_ID, retry_after_seconds=1.0
    )


def _check_same(before: tuple[str, str, str], asked: StatusChange) -> None:
    for field, was, now in zip(
        ("merchant_id", "status", "reason"),
        before,
        (asked.merchant_id, asked.status, asked.reason),
        strict=True,
    ):
        if was != now:
            raise IdConflictError(id=asked.request_id, field=field)
