"""Who may call what: a table, and nothing that it does not allow.

`topology/access.toml` holds rules `[[allow]]` with `methods` (`package.Service/Method`, or a
prefix that ends in `*`), `callers` (service names; `@services` for any proven one; `@anyone` also
for callers outside the mesh) and `roles` (one of which the principal must have; none: no matter).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from common.errors import PermissionDeniedError
from common.mesh.incoming import IncomingCall, IncomingMiddleware

ANY_SERVICE: Final = "@services"
ANYONE: Final = "@anyone"


class AccessError(Exception):
    """The access table is wrong; the message says where and how."""


class AccessRule(BaseModel):
    """One permission."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: tuple[str, ...]
    callers: tuple[str, ...]
    roles: frozenset[str] = frozenset()

    def covers(self, method: str, caller: str) -> bool:
        """Say whether the rule is about this method and caller."""
        return any(_fits(pattern, method) for pattern in self.methods) and (
            ANYONE in self.callers
            or (caller != "" and (ANY_SERVICE in self.callers or caller in self.callers))
        )


def _fits(pattern: str, method: str) -> bool:
    if pattern.endswith("*"):
        return method.startswith(pattern[:-1])
    return method == pattern


@dataclass(frozen=True, slots=True)
class AccessTable:
    """All rules; what none allows is refused."""

    rules: Sequence[AccessRule]

    def roles_for(self, path: str, caller: str) -> tuple[frozenset[str], ...]:
        """Return the sets of roles of which one must be met; empty when nothing allows it."""
        method = path.lstrip("/")
        return tuple(rule.roles for rule in self.rules if rule.covers(method, caller))


def load_access(path: Path) -> AccessTable:
    """Read the table; raises AccessError with the file's name and what is wrong with it."""
    try:
        return parse_access(tomllib.loads(path.read_text()))
    except (OSError, tomllib.TOMLDecodeError, AccessError) as error:
        raise AccessError(f"{path}: {error}") from error


def parse_access(data: Mapping[str, Any]) -> AccessTable:
    """Return the table that a parsed file describes; raises AccessError."""
    unknown = sorted(set(data) - {"allow"})
    if unknown:
        raise AccessError(f"unknown: {', '.join(unknown)}")
    try:
        return AccessTable([AccessRule.model_validate(rule) for rule in data.get("allow", ())])
    except ValidationError as error:
        raise AccessError(str(error)) from error


class IncomingAuthorisation(IncomingMiddleware):
    """Refuses calls that the table does not allow."""

    def __init__(self, table: AccessTable) -> None:
        self._table = table
        # Callers are proven before they come here, so their number is that of the services.
        self._known: dict[tuple[str, str], tuple[frozenset[str], ...]] = {}

    def before(self, call: IncomingCall) -> None:
        """Look the call up; needs the context middleware before it."""
        path = call.method.path
        caller = call.caller or ""
        known = self._known.get((path, caller))
        if known is None:
            known = self._known[path, caller] = self._table.roles_for(path, caller)
        for roles in known:
            if not roles:
                return
            if call.context is not None and not roles.isdisjoint(call.context.principal.roles):
                return
        raise PermissionDeniedError(method=path, caller=caller)
