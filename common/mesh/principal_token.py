"""The principal of a call, signed: metadata `paymesh-principal-bin`.

Made from credentials at the edge and read by every service of the mesh. It is never taken from a
request body, and never from baggage, which anyone may write. A token is verified once by each
process and remembered until it expires.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from google.protobuf.message import DecodeError
from paymesh.type.v1 import ActorType as ActorTypeProto
from paymesh.type.v1 import Mode as ModeProto
from paymesh.type.v1 import Principal as PrincipalProto
from paymesh.type.v1 import SignedPrincipal

from common.clock import Clock
from common.context import ActorType, Mode, Principal
from common.errors import UnauthenticatedError
from common.mesh.key_ring import KeyRing

PRINCIPAL_KEY: Final = "paymesh-principal-bin"
"""Metadata key of the signed principal."""

LIFETIME_SECONDS: Final = 3_600
"""Longer than any call and its retries; a service that acts later signs anew from its row."""

_CACHE_MAX: Final = 8_192
"""Merchants and users active at once in one process; a miss costs one HMAC."""


class PrincipalTokens:
    """Signs principals and verifies the tokens of others."""

    def __init__(self, keys: KeyRing, clock: Clock) -> None:
        self._keys = keys
        self._clock = clock
        self._signed: OrderedDict[Principal, tuple[bytes, float]] = OrderedDict()
        self._verified: OrderedDict[bytes, tuple[Principal, float]] = OrderedDict()

    def sign(self, principal: Principal, now: float) -> bytes:
        """Return a serialised `SignedPrincipal`, the same one for half of its life.

        `now` is the clock's `monotonic`, which the caller has read already.
        """
        signed = self._signed.get(principal)
        if signed is not None and now < signed[1]:
            return signed[0]
        body = _to_proto(principal).SerializeToString(deterministic=True)
        expires_at = int(self._clock.now().timestamp()) + LIFETIME_SECONDS
        token = SignedPrincipal(
            principal=body,
            signature=self._keys.sign(_proven(body, expires_at)),
            key_id=self._keys.current,
            expires_at_seconds=expires_at,
        ).SerializeToString()
        self._signed[principal] = (token, now + LIFETIME_SECONDS / 2)
        if len(self._signed) > _CACHE_MAX:
            self._signed.popitem(last=False)
        return token

    def verify(self, token: bytes, now: float) -> Principal:
        """Return the principal that a token proves; raises UnauthenticatedError. `now` as above."""
        verified = self._verified.get(token)
        if verified is not None and now < verified[1]:
            return verified[0]
        principal, left_seconds = self._check(token)
        self._verified[token] = (principal, now + left_seconds)
        if len(self._verified) > _CACHE_MAX:
            self._verified.popitem(last=False)
        return principal

    def _check(self, token: bytes) -> tuple[Principal, float]:
        try:
            signed = SignedPrincipal.FromString(token)
            left_seconds = signed.expires_at_seconds - self._clock.now().timestamp()
            proven = _proven(signed.principal, signed.expires_at_seconds)
            if left_seconds <= 0 or not self._keys.verify(signed.key_id, proven, signed.signature):
                raise UnauthenticatedError
            return _from_proto(PrincipalProto.FromString(signed.principal)), left_seconds
        except (DecodeError, OverflowError, ValueError):
            raise UnauthenticatedError from None


def _proven(body: bytes, expires_at: int) -> bytes:
    return expires_at.to_bytes(8, "big", signed=True) + body


def _to_proto(principal: Principal) -> PrincipalProto:
    return PrincipalProto(
        tenant_id=principal.tenant_id,
        mode=ModeProto.Value(f"MODE_{principal.mode}"),
        merchant_id=principal.merchant_id,
        actor_type=ActorTypeProto.Value(f"ACTOR_TYPE_{principal.actor_type}"),
        actor_id=principal.actor_id,
        on_behalf_of=principal.on_behalf_of,
        roles=principal.roles,
    )


def _from_proto(principal: PrincipalProto) -> Principal:
    """Convert; raises ValueError for a mode or actor type that is not one."""
    return Principal(
        tenant_id=principal.tenant_id,
        mode=Mode(ModeProto.Name(principal.mode).removeprefix("MODE_")),
        merchant_id=principal.merchant_id,
        actor_type=ActorType(ActorTypeProto.Name(principal.actor_type).removeprefix("ACTOR_TYPE_")),
        actor_id=principal.actor_id,
        on_behalf_of=principal.on_behalf_of,
        roles=tuple(principal.roles),
    )
