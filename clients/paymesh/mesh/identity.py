"""Who calls, for programs that are no process of the mesh: a proven name, and a principal.

Both are signed with secrets that the program shares with the mesh (`PAYMESH_MESH_SECRET`,
`PAYMESH_PRINCIPAL_KEY`), for an hour each, and made anew after half of it. With mutual TLS the
certificate proves the name.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Sequence
from typing import Final

from paymesh.mesh.frames import Metadata
from paymesh.type.v1 import ActorType, Mode, Principal, SignedPrincipal

CALLER_KEY: Final = "paymesh-caller"
"""Metadata key of the caller's name and its proof."""

PRINCIPAL_KEY: Final = "paymesh-principal-bin"
"""Metadata key of the signed principal."""

LIFETIME_SECONDS: Final = 3_600


class Identity:
    """A caller's proofs, as metadata of its calls.

    `name` is the caller's, as the table of who may call what has it (`topology/**/access.toml`).
    `secret` is the mesh's, `id:secret` or bare; empty with mutual TLS, where the certificate
    carries the name. Without `principal_secret` the program acts as itself, in the mode LIVE of
    the tenant `default`.
    """

    def __init__(
        self,
        name: str,
        secret: str = "",
        *,
        principal_secret: str = "",
        tenant_id: str = "default",
        mode: str = "LIVE",
        actor_type: str = "SERVICE",
        actor_id: str = "",
        roles: Sequence[str] = (),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._secret = secret
        self._principal_secret = principal_secret
        self._principal = Principal(
            tenant_id=tenant_id,
            mode=Mode.Value(f"MODE_{mode}"),
            actor_type=ActorType.Value(f"ACTOR_TYPE_{actor_type}"),
            actor_id=actor_id or name,
            roles=roles,
        )
        if not principal_secret and (roles or (tenant_id, mode) != ("default", "LIVE")):
            raise ValueError("another tenant, mode or role has to be proven: principal_secret")
        self._now = now
        self._made: Metadata = ()
        self._fresh_until = 0.0

    def metadata(self) -> Metadata:
        """Return the metadata of a call."""
        now = self._now()
        if now >= self._fresh_until:
            self._made = self._make(int(now) + LIFETIME_SECONDS)
            self._fresh_until = now + LIFETIME_SECONDS / 2
        return self._made

    def _make(self, expires_at: int) -> Metadata:
        caller = self._name
        if self._secret:
            key_id, key = _key(self._secret, "caller")
            text = f"{self._name}.{key_id}.{expires_at}"
            caller = f"{text}.{hmac.digest(key, text.encode(), 'sha256').hex()}"
        if not self._principal_secret:
            return ((CALLER_KEY, caller),)
        key_id, key = _key(self._principal_secret, "principal")
        body = self._principal.SerializeToString(deterministic=True)
        proven = expires_at.to_bytes(8, "big", signed=True) + body
        token = SignedPrincipal(
            principal=body,
            signature=hmac.digest(key, proven, "sha256"),
            key_id=key_id,
            expires_at_seconds=expires_at,
        )
        return ((CALLER_KEY, caller), (PRINCIPAL_KEY, token.SerializeToString()))


def _key(secrets: str, purpose: str) -> tuple[str, bytes]:
    """Return name and key of the first of several secrets, which is the one that signs."""
    first = secrets.split(",")[0].strip()
    name, colon, secret = first.partition(":")
    if not colon:
        name, secret = "k1", first
    return name, hmac.digest(secret.encode(), b"paymesh:" + purpose.encode(), hashlib.sha256)
