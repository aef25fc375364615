"""Freeze, unfreeze or close an account, limit it, buffer it: compare-and-set, with history.

What waits in the account's buffer is posted first, so that nothing that was booked before the
change is posted after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from common.db.conflicts import settle_conflicts
from common.db.pool import Pool
from common.errors import (
    AmountOutOfRangeError,
    FieldInvalidError,
    IdConflictError,
    IdMalformedError,
    StateConflictError,
    VersionConflictError,
)
from common.ids import book_of, is_id
from common.money import AMOUNT_MINOR_MAX
from services.account.domain.accounts import Account, AccountStatus, obstacle_to_buffering
from services.account.errors import AccountNotFoundError
from services.account.store.accounts import AccountChange, AccountStore
from services.account.store.buffers import drain_locked

ANY_VERSION: Final = 0
"""No account has it: whoever freezes one that moves all the time cannot know the version."""


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """Who changes which account, and why."""

    account_id: str
    request_id: str
    """Made by the caller; a repeat answers as the first time."""
    expected_version: int
    """The version that the caller saw; `ANY_VERSION` where each posting would be one too many."""
    reason: str
    actor: str
    tenant_id: str = "default"
    mode: str = "LIVE"
    biz_trace_id: str = ""


async def set_account_status(
    pool: Pool, store: AccountStore, request: ChangeRequest, status: AccountStatus
) -> Account:
    """Give an account another status; return it afterwards.

    Raises:
        AccountNotFoundError: there is none in the caller's world.
        VersionConflictError: it changed since it was read.
        StateConflictError: it is closed for ever, or shall close and is not empty.
        IdConflictError: the request id was used for another change.
    """
    return await _change(pool, store, request, "status", {"status": str(status)})


async def change_limits(
    pool: Pool,
    store: AccountStore,
    request: ChangeRequest,
    *,
    credit_limit_minor: int,
    court_frozen_minor: int,
) -> Account:
    """Give an account another credit limit, or another amount that a court has frozen.

    Raises:
        AmountOutOfRangeError: a limit below zero or above 10^15.
        AccountNotFoundError, VersionConflictError, StateConflictError, IdConflictError: as
            `set_account_status`.
    """
    limits = {"credit_limit_minor": credit_limit_minor, "court_frozen_minor": court_frozen_minor}
    for field, limit in limits.items():
        if not 0 <= limit <= AMOUNT_MINOR_MAX:
            raise AmountOutOfRangeError(field=field)
    return await _change(pool, store, request, "limits", limits)


async def set_account_buffering(
    pool: Pool, store: AccountStore, request: ChangeRequest, *, is_buffered: bool
) -> Account:
    """Let single credits of an account be buffered, or not any more; return it afterwards.

    Raises:
        FieldInvalidError: an account that grows by debits, or of the kind `unclaimed`.
        AccountNotFoundError, VersionConflictError, StateConflictError, IdConflictError: as
            `set_account_status`.
    """
    return await _change(pool, store, request, "buffering", {"is_buffered": is_buffered})


async def _change(
    pool: Pool, store: AccountStore, request: ChangeRequest, verb: str, wanted: Mapping[str, Any]
) -> Account:
    if not is_id(request.account_id, "acc"):
        raise IdMalformedError(field="account_id")
    return await settle_conflicts(lambda: _change_once(pool, store, request, verb, wanted))


async def _change_once(
    pool: Pool, store: AccountStore, request: ChangeRequest, verb: str, wanted: Mapping[str, Any]
) -> Account:
    book = book_of(request.account_id)
    async with pool.transaction() as connection:
        account = await store.lock(connection, book, request.account_id)
        if account is None or (account.tenant_id, account.mode) != (
            request.tenant_id,
            request.mode,
        ):
            raise AccountNotFoundError(account_id=request.account_id)
        version_seen = account.version
        if account.is_buffered and await drain_locked(connection, book, account.id):
            account = await store.lock(connection, book, account.id) or account
        # Under the account's lock, so that two copies of a request do not both pass.
        earlier = await store.find_change(connection, book, account.id, request.request_id)
        if earlier is not None:
            if earlier != (verb, dict(wanted)):
                raise IdConflictError(id=request.request_id, field=next(iter(wanted)))
            return account
        if wanted.get("is_buffered"):
            rule = obstacle_to_buffering(account.kind, account.normal_side)
            if rule is not None:
                raise FieldInvalidError(field="is_buffered", rule=rule)
        if request.expected_version not in (ANY_VERSION, version_seen):
            raise VersionConflictError(version=version_seen, expected=request.expected_version)
        if account.status == AccountStatus.CLOSED:
            raise StateConflictError(resource="account", state=account.status)
        if wanted.get("status") == AccountStatus.CLOSED and not account.is_empty:
            raise StateConflictError(resource="account", state="NOT_EMPTY")
        changed = replace(account, **wanted)
        version, updated_at = await store.update(
            connection,
            book,
            changed,
            AccountChange(
                request_id=request.request_id,
                verb=verb,
                before={name: getattr(account, name) for name in wanted},
                after=wanted,
                actor=request.actor,
                reason=request.reason,
                biz_trace_id=request.biz_trace_id,
            ),
        )
    return replace(changed, version=version, updated_at=updated_at)
