"""Registers the keys that merchants sign with, and takes them back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from common.audit import AuditEntry, digest_of, require_role
from common.context import CallContext
from common.db.history import HistoryRow
from common.errors import IdConflictError, NotFoundError
from services.member.domain import MerchantKey, is_public_key
from services.member.errors import PublicKeyInvalidError
from services.member.flows.parts import Parts
from services.member.flows.register_merchant import OPERATOR

GOOD = "GOOD"
REVOKED = "REVOKED"


@dataclass(frozen=True, slots=True)
class NewKey:
    """What an operator asks for."""

    request_id: str
    merchant_id: str
    public_key: bytes
    mode: str


async def add_merchant_key(parts: Parts, asked: NewKey, call: CallContext) -> MerchantKey:
    """Return the key, registered now or before.

    Raises:
        PermissionDeniedError: not an operator.
        PublicKeyInvalidError: the bytes are no Ed25519 public key.
        NotFoundError: no such merchant.
        IdConflictError: the request's id stands for another key.
    """
    principal = call.principal
    role = require_role(principal, OPERATOR)
    if not is_public_key(asked.public_key):
        raise PublicKeyInvalidError(field="public_key")
    if await parts.store.find_merchant(principal.tenant_id, asked.merchant_id) is None:
        raise NotFoundError(resource="merchant", id=asked.merchant_id)
    now = parts.clock.now()
    key = MerchantKey(
        id=parts.ids.new("key"),
        tenant_id=principal.tenant_id,
        merchant_id=asked.merchant_id,
        mode=asked.mode,
        public_key=asked.public_key,
        request_id=asked.request_id,
        actor=principal.actor,
        revoked_at=None,
        version=1,
        created_at=now,
        updated_at=now,
    )
    audit = AuditEntry(
        principal=principal,
        role=role,
        action="merchant_key.add",
        subject=f"merchant {asked.merchant_id}",
        reason="",
        at=now,
        after_digest=digest_of([key.id, asked.public_key.hex(), asked.mode]),
    )
    history = _history(key, "", GOOD, 1, call, asked.request_id)
    known, is_new = await parts.store.add_key(key, history, audit)
    if not is_new:
        for field in ("merchant_id", "public_key", "mode"):
            if getattr(known, field) != getattr(asked, field):
                raise IdConflictError(id=asked.request_id, field=field)
    return known


async def revoke_merchant_key(
    parts: Parts, request_id: str, key_id: str, call: CallContext
) -> MerchantKey:
    """Return the key, revoked now or before: revoking twice is revoking once.

    Raises:
        PermissionDeniedError: not an operator.
        NotFoundError: no such key.
    """
    principal = call.principal
    role = require_role(principal, OPERATOR)
    key = await parts.store.find_key(principal.tenant_id, key_id)
    if key is None:
        raise NotFoundError(resource="key", id=key_id)
    if key.revoked_at is not None:
        return key
    audit = AuditEntry(
        principal=principal,
        role=role,
        action="merchant_key.revoke",
        subject=f"merchant {key.merchant_id}",
        reason="",
        at=parts.clock.now(),
        before_digest=digest_of([key.id, GOOD]),
        after_digest=digest_of([key.id, REVOKED]),
    )
    history = _history(key, GOOD, REVOKED, key.version + 1, call, request_id, at=audit.at)
    revoked = await parts.store.revoke_key(key, history, audit)
    if revoked is None:
        revoked = await parts.store.find_key(principal.tenant_id, key_id)
    if revoked is None:
        raise RuntimeError("a key is gone")
    return revoked


def _history(
    key: MerchantKey,
    before: str,
    after: str,
    version: int,
    call: CallContext,
    cause: str,
    at: datetime | None = None,
) -> HistoryRow:
    return HistoryRow(
        noun="key",
        id=key.id,
        version=version,
        from_state=before,
        to_state=after,
        actor=call.principal.actor,
        at=at or key.created_at,
        cause=cause,
    )
