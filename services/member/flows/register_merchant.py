"""Registers merchants, and opens their accounts in every world."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.audit import AuditEntry, digest_of, require_role
from common.context import CallContext
from common.db.history import HistoryRow, cause_of_request
from common.errors import (
    FieldInvalidError,
    IdConflictError,
    Outcome,
    PaymeshError,
    Retry,
    UnavailableError,
)
from services.member.domain import Merchant, Status, openings_of_merchant
from services.member.errors import MerchantNumberUsedError
from services.member.flows.parts import Parts, check_currencies

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class NewMerchant:
    """What an operator asks for."""

    request_id: str
    merchant_no: str
    name: str
    currency_codes: tuple[str, ...]


async def register_merchant(parts: Parts, asked: NewMerchant, call: CallContext) -> Merchant:
    """Return the merchant, registered now or before, with its accounts open.

    Raises:
        PermissionDeniedError: not an operator.
        CurrencyUnknownError: no row was written.
        IdConflictError: the request's id stands for another merchant.
        MerchantNumberUsedError: the number stands for a merchant of another request.
        UnavailableError: the ledger is away; a repeat under the same id goes on from there.
    """
    principal = call.principal
    role = require_role(principal, OPERATOR)
    check_currencies(asked.currency_codes)
    if "\0" in asked.name:
        raise FieldInvalidError(field="name", rule="must not contain U+0000")
    now = parts.clock.now()
    merchant = Merchant(
        id=parts.ids.new("mer"),
        tenant_id=principal.tenant_id,
        mode=principal.mode,
        merchant_no=asked.merchant_no,
        name=asked.name,
        status=Status.OPENING,
        currency_codes=asked.currency_codes,
        request_id=asked.request_id,
        actor=principal.actor,
        biz_trace_id=call.biz_trace_id,
        version=1,
        created_at=now,
        updated_at=now,
    )
    history = history_of(
        merchant, "", Status.OPENING, 1, call, now, cause=cause_of_request(asked.request_id)
    )
    audit = AuditEntry(
        principal=principal,
        role=role,
        action="merchant.register",
        subject=f"merchant {merchant.id}",
        reason="",
        at=now,
        after_digest=digest_of([asked.merchant_no, asked.name, list(asked.currency_codes)]),
    )
    known, is_new = await parts.store.add_merchant(merchant, history, audit)
    if not is_new:
        _check_same(known, asked)
    if known.status is not Status.OPENING:
        return known
    return await finish_merchant(parts, known, call)


async def finish_merchant(parts: Parts, merchant: Merchant, call: CallContext) -> Merchant:
    """Open a merchant's accounts and let it do business; safe to repeat.

    Raises:
        UnavailableError: the ledger is away, or gave no clear answer.
    """
    try:
        for opening in openings_of_merchant(merchant):
            await parts.openings.submit(opening)
    except PaymeshError as error:
        raise UnavailableError(
            target="account", outcome=Outcome.UNKNOWN, retry=Retry.SAME_ID
        ) from error
    history = history_of(
        merchant, Status.OPENING, Status.ACTIVE, merchant.version + 1, call, parts.clock.now()
    )
    moved = await parts.store.activate_merchant(merchant, history)
    if moved is None:
        # A copy of the request, or the sweeper, was faster.
        moved = await parts.store.find_merchant(merchant.tenant_id, merchant.id)
    if moved is None:
        raise RuntimeError("a merchant is gone")
    return moved


def history_of(
    merchant: Merchant,
    before: str,
    after: Status,
    version: int,
    call: CallContext,
    at: datetime,
    *,
    reason: str = "",
    cause: str = "",
) -> HistoryRow:
    """Return the history row of a change of a merchant's status."""
    return HistoryRow(
        noun="merchant",
        id=merchant.id,
        version=version,
        from_state=before,
        to_state=after,
        actor=call.principal.actor,
        at=at,
        reason=reason,
        cause=cause,
        biz_trace_id=merchant.biz_trace_id,
    )


def _check_same(known: Merchant, asked: NewMerchant) -> None:
    if known.request_id != asked.request_id:
        raise MerchantNumberUsedError(field="merchant_no")
    for field in ("merchant_no", "name", "currency_codes"):
        if getattr(known, field) != getattr(asked, field):
            raise IdConflictError(id=asked.request_id, field=field)
