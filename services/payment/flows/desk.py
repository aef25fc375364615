"""The exception desk: a maker proposes, a checker decides, and nobody decides alone."""

from __future__ import annotations

from dataclasses import replace

from common.audit import AuditEntry, digest_of, require_role
from common.context import CallContext, Principal, bound
from common.errors import (
    FieldInvalidError,
    NotFoundError,
    PaymeshError,
    StateConflictError,
    VersionConflictError,
)
from services.payment.domain.exceptions import (
    EXCEPTION_MOVES,
    Action,
    ExceptionState,
    PaymentException,
    may_fail,
)
from services.payment.errors import MakerIsCheckerError
from services.payment.flows.carry_out import carry_out, find_subject
from services.payment.flows.parts import Parts, call_of
from services.payment.store.exceptions import ExceptionChange

MAKER = "desk_maker"
CHECKER = "desk_checker"


async def visible_exception(
    parts: Parts, exception_id: str, principal: Principal
) -> PaymentException:
    """Return an exception of the principal's world; raises NotFoundError."""
    exception = await parts.exceptions.find_exception(exception_id)
    world = (principal.tenant_id, str(principal.mode))
    if exception is None or world != (exception.owner.tenant_id, exception.owner.mode):
        raise NotFoundError(resource="exception")
    return exception


async def propose_resolution(
    parts: Parts, exception_id: str, action: str, reason: str, version: int, call: CallContext
) -> PaymentException:
    """Propose an action, in place of an earlier proposal where there is one.

    Raises:
        RoleMissingError, NotFoundError, VersionConflictError, StateConflictError,
        FieldInvalidError: nothing was written.
    """
    role = require_role(call.principal, MAKER)
    exception = await visible_exception(parts, exception_id, call.principal)
    _check(exception, version, ExceptionState.PROPOSED)
    if action not in exception.actions:
        rule = f"must be one of {', '.join(exception.actions)}"
        raise FieldInvalidError(field="action", rule=rule)
    if action == Action.FAIL:
        await _check_may_fail(parts, exception)
    after = exception.moved(
        ExceptionState.PROPOSED,
        parts.clock.now(),
        action=Action(action),
        maker=call.principal.actor,
        maker_reason=reason,
        checker="",
        checker_reason="",
    )
    return await _save(parts, exception, after, "exception.propose", role, reason, call)


async def decide_resolution(
    parts: Parts,
    exception_id: str,
    reason: str,
    version: int,
    call: CallContext,
    *,
    approved: bool,
) -> PaymentException:
    """Approve or reject a proposal; what is approved is carried out at once, as far as it goes.

    Raises:
        RoleMissingError, NotFoundError, VersionConflictError, StateConflictError,
        MakerIsCheckerError: nothing was written.
    """
    role = require_role(call.principal, CHECKER)
    exception = await visible_exception(parts, exception_id, call.principal)
    if exception.state is not ExceptionState.PROPOSED:
        raise StateConflictError(resource="exception", state=exception.state)
    _check(exception, version, ExceptionState.APPROVED)
    if exception.maker == call.principal.actor:
        raise MakerIsCheckerError(maker=exception.maker)
    now = parts.clock.now()
    if not approved:
        after = exception.rejected(now)
        return await _save(parts, exception, after, "exception.reject", role, reason, call)
    after = exception.moved(
        ExceptionState.APPROVED, now, checker=call.principal.actor, checker_reason=reason
    )
    saved = await _save(parts, exception, after, "exception.approve", role, reason, call)
    with bound(_as_service(call)):
        try:
            return await carry_out(parts, saved.id) or saved
        except PaymeshError:
            # It is decided and stored; the exception's job goes on with it.
            return await parts.exceptions.find_exception(saved.id) or saved


async def _check_may_fail(parts: Parts, exception: PaymentException) -> None:
    """Refuse to let something fail whose money has come, or which has ended."""
    subject = await find_subject(parts, exception)
    if subject is not None and not may_fail(subject.state):
        raise StateConflictError(resource="subject", state=subject.state)


def _as_service(call: CallContext) -> CallContext:
    # What follows from a decision is payment's own work; roles end at the desk.
    return replace(call, principal=replace(call.principal, roles=()))


def _check(exception: PaymentException, version: int, wanted: ExceptionState) -> None:
    if wanted not in EXCEPTION_MOVES[exception.state]:
        raise StateConflictError(resource="exception", state=exception.state)
    if exception.version != version:
        raise VersionConflictError(version=exception.version, expected=version)


async def _save(
    parts: Parts,
    before: PaymentException,
    after: PaymentException,
    action: str,
    role: str,
    reason: str,
    call: CallContext,
) -> PaymentException:
    """Write a person's decision with its audit row."""
    at = after.updated_at
    row_call = replace(
        call_of(before), principal=replace(call.principal, merchant_id=before.owner.merchant_id)
    )
    audit = AuditEntry(
        principal=call.principal,
        role=role,
        action=action,
        subject=f"exception {before.id}",
        reason=reason,
        at=at,
        before_digest=digest_of(_digested(before)),
        after_digest=digest_of(_digested(after)),
        biz_trace_id=before.biz_trace_id,
    )
    words = f"{after.action or before.action}: {reason}"
    change = ExceptionChange(before, after, words, row_call, at, audit=audit)
    if await parts.exceptions.save_exception(change):
        return after
    now = await parts.exceptions.find_exception(before.id) or before
    raise VersionConflictError(version=now.version, expected=before.version)


def _digested(exception: PaymentException) -> dict[str, object]:
    return {
        "id": exception.id,
        "state": exception.state,
        "version": exception.version,
        "action": exception.action,
        "maker": exception.maker,
        "checker": exception.checker,
    }
