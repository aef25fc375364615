"""Puts new rules in force, as a new version."""

from __future__ import annotations

from common.audit import require_role
from common.clock import Clock
from common.context import CallContext
from common.errors import FieldInvalidError, IdConflictError, VersionConflictError
from services.routing.domain import ChannelRule, fault_of
from services.routing.rulebook import Rulebook
from services.routing.store import NewVersion, RuleStore

ROLE = "operator"


async def put_rules(
    store: RuleStore,
    rulebook: Rulebook,
    clock: Clock,
    *,
    request_id: str,
    rules: tuple[ChannelRule, ...],
    expected_version: int,
    reason: str,
    call: CallContext,
) -> int:
    """Return the new version; a repeat of the request gets the version that it made.

    Raises:
        RoleMissingError: the caller is no operator.
        FieldInvalidError: the rules contradict each other.
        VersionConflictError: they changed since they were read.
        IdConflictError: the request id was used for other rules.
    """
    role = require_role(call.principal, ROLE)
    fault = fault_of(rules)
    if fault is not None:
        raise FieldInvalidError(field=fault[0], rule=fault[1])
    before = await store.find_by_request(call, request_id)
    if before is None:
        new = NewVersion(
            request_id=request_id,
            rules=rules,
            expected_version=expected_version,
            reason=reason,
            call=call,
            at=clock.now(),
            role=role,
        )
        if await store.add(new):
            await rulebook.load()
            return expected_version + 1
        # Either the same request came twice at once, or somebody was quicker.
        before = await store.find_by_request(call, request_id)
    if before is None:
        version = await store.find_current_version()
        raise VersionConflictError(version=version, expected=expected_version)
    if before.rules != rules:
        raise IdConflictError(field="rules", id=request_id)
    if before.version != expected_version + 1:
        raise IdConflictError(field="expected_version", id=request_id)
    return before.version
