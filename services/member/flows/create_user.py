"""Registers users: the row first, then the accounts, then the user may do business."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.context import CallContext
from common.db.history import HistoryRow, cause_of_request
from common.errors import (
    IdConflictError,
    Outcome,
    PaymeshError,
    PermissionDeniedError,
    Retry,
    UnavailableError,
)
from services.member.domain import Status, User, opening_of_user
from services.member.errors import MerchantNumberUsedError
from services.member.flows.parts import Parts, check_currencies


@dataclass(frozen=True, slots=True)
class NewUser:
    """What a merchant asks for."""

    request_id: str
    merchant_user_no: str
    currency_codes: tuple[str, ...]


async def create_user(parts: Parts, asked: NewUser, call: CallContext) -> User:
    """Return the user, registered now or before, with its accounts open.

    Raises:
        CurrencyUnknownError: no row was written.
        IdConflictError: the request's id stands for another user.
        MerchantNumberUsedError: the number stands for a user of another request.
        UnavailableError: the ledger is away; a repeat under the same id goes on from there.
    """
    principal = call.principal
    if not principal.merchant_id:
        raise PermissionDeniedError(method="CreateUser", caller=call.caller)
    check_currencies(asked.currency_codes)
    now = parts.clock.now()
    user = User(
        id=parts.ids.new("usr"),
        tenant_id=principal.tenant_id,
        mode=principal.mode,
        merchant_id=principal.merchant_id,
        merchant_user_no=asked.merchant_user_no,
        status=Status.OPENING,
        currency_codes=asked.currency_codes,
        request_id=asked.request_id,
        actor=principal.actor,
        biz_trace_id=call.biz_trace_id,
        version=1,
        created_at=now,
        updated_at=now,
    )
    history = HistoryRow(
        noun="user",
        id=user.id,
        version=1,
        from_state="",
        to_state=Status.OPENING,
        actor=user.actor,
        at=now,
        biz_trace_id=user.biz_trace_id,
        cause=cause_of_request(asked.request_id),
    )
    known, is_new = await parts.users.submit((user, history))
    if not is_new:
        _check_same(known, asked)
    if known.status is not Status.OPENING:
        return known
    return await finish_user(parts, known)


async def finish_user(parts: Parts, user: User) -> User:
    """Open a user's accounts and let it do business; safe to repeat.

    Raises:
        UnavailableError: the ledger is away, or gave no clear answer.
    """
    try:
        await parts.openings.submit(opening_of_user(user))
    except PaymeshError as error:
        # The user is written down, so whatever the ledger said, it is not as if nothing happened.
        raise UnavailableError(
            target="account", outcome=Outcome.UNKNOWN, retry=Retry.SAME_ID
        ) from error
    return await parts.activations.submit(user.id)


def _check_same(known: User, asked: NewUser) -> None:
    if known.request_id != asked.request_id:
        raise MerchantNumberUsedError(field="merchant_user_no")
    named = replace(
        known,
        merchant_user_no=asked.merchant_user_no,
        currency_codes=asked.currency_codes,
    )
    for field in ("merchant_user_no", "currency_codes"):
        if getattr(known, field) != getattr(named, field):
            raise IdConflictError(id=asked.request_id, field=field)
