"""The circumstances of a call, from metadata to `common.context` and back.

| metadata | what | trusted because |
| --- | --- | --- |
| `paymesh-caller` | the calling service | signed, or named by its certificate (caller_token.py) |
| `paymesh-principal-bin` | who acts, in which world | signed (principal_token.py) |
| `baggage` | `biz_trace_id`, the story | it only labels |
| `paymesh-lane` | which version of a service should answer | it only routes |
| `paymesh-causation` | the event or request that caused the call | it only labels |
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from common.context import LANE_DEFAULT, ActorType, CallContext, Principal, bound
from common.errors import UnauthenticatedError
from common.mesh.caller_token import CALLER_KEY, CallerTokens
from common.mesh.incoming import IncomingCall, IncomingMiddleware
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware
from common.mesh.principal_token import PRINCIPAL_KEY, PrincipalTokens
from common.telemetry.propagation import BAGGAGE, format_baggage, read_biz_trace_id

LANE_KEY: Final = "paymesh-lane"
CAUSATION_KEY: Final = "paymesh-causation"

_LABEL_LENGTH_MAX: Final = 64
"""Lanes and causes are short names; longer ones are cut off as noise."""


@lru_cache(maxsize=256)
def _nobody(caller: str) -> Principal:
    """The principal of a call that names none: the calling service itself."""
    return Principal(actor_type=ActorType.SERVICE, actor_id=caller)


class IncomingContext(IncomingMiddleware):
    """Finds out who calls, who acts and which story it is, and binds it for the servicer."""

    def __init__(self, callers: CallerTokens, principals: PrincipalTokens) -> None:
        self._callers = callers
        self._principals = principals

    def before(self, call: IncomingCall) -> None:
        """Bind the call's circumstances; refuse proofs that prove nothing."""
        headers = call.headers
        caller = call.caller
        if caller is None:
            caller = call.caller = self._caller_of(call)
        token = headers.get(PRINCIPAL_KEY)
        if token is None:
            principal = _nobody(caller)
        else:
            raw = token if isinstance(token, bytes) else token.encode()
            principal = self._principals.verify(raw, call.started_at)
        baggage = headers.get(BAGGAGE)
        call.context = context = CallContext(
            principal,
            "" if baggage is None else read_biz_trace_id(str(baggage)),
            caller,
            str(headers.get(LANE_KEY, LANE_DEFAULT))[:_LABEL_LENGTH_MAX],
            call.work_until,
            str(headers.get(CAUSATION_KEY, ""))[:_LABEL_LENGTH_MAX],
        )
        # Never unbound: the call has a task of its own, and the binding ends with it.
        bound(context).__enter__()

    def _caller_of(self, call: IncomingCall) -> str:
        said = call.headers.get(CALLER_KEY)
        if call.identities is not None:
            # Mutual TLS: the name counts when the certificate carries it.
            if said is None:
                return next(iter(call.identities)) if len(call.identities) == 1 else ""
            if said not in call.identities:
                raise UnauthenticatedError
            return str(said)
        return "" if said is None else self._callers.read(str(said), call.started_at)


class OutgoingContext(OutgoingMiddleware):
    """Writes the circumstances of the current call into the calls that it makes."""

    def __init__(
        self, callers: CallerTokens, principals: PrincipalTokens, *, has_tls: bool
    ) -> None:
        self._callers = callers
        self._principals = principals
        self._has_tls = has_tls

    def before(self, call: OutgoingCall) -> None:
        """Add the metadata of the table above."""
        context = call.context
        metadata = call.metadata
        if not call.is_local:
            token = call.caller
            if not self._has_tls:
                token = self._callers.make(token, call.started_at)
            metadata.append((CALLER_KEY, token))
        principal = context.principal
        if principal.actor_id or principal.merchant_id:
            metadata.append((PRINCIPAL_KEY, self._principals.sign(principal, call.started_at)))
        if context.biz_trace_id:
            metadata.append((BAGGAGE, format_baggage(context.biz_trace_id)))
        if context.lane != LANE_DEFAULT:
            metadata.append((LANE_KEY, context.lane))
        if context.causation_id:
            metadata.append((CAUSATION_KEY, context.causation_id))
