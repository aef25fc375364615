"""The production chain of middleware, in the order in which it holds."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.trace import Tracer

from common.clock import Clock
from common.mesh.caller_token import CallerTokens
from common.mesh.incoming import IncomingMiddleware
from common.mesh.key_ring import KeyRing
from common.mesh.middleware.authorisation import AccessTable, IncomingAuthorisation
from common.mesh.middleware.breaker import OutgoingBreaker
from common.mesh.middleware.context import IncomingContext, OutgoingContext
from common.mesh.middleware.deadline import IncomingDeadline, OutgoingDeadline
from common.mesh.middleware.error_mapping import IncomingErrorMapping
from common.mesh.middleware.shedding import IncomingShedding
from common.mesh.middleware.telemetry import IncomingTelemetry, Observe, OutgoingTelemetry
from common.mesh.middleware.validation import IncomingValidation
from common.mesh.outgoing import OutgoingMiddleware
from common.mesh.principal_token import PrincipalTokens
from common.mesh.settings import MeshSettings


@dataclass(frozen=True, slots=True)
class Chain:
    """Middleware of both directions, outermost first."""

    incoming: tuple[IncomingMiddleware, ...] = ()
    outgoing: tuple[OutgoingMiddleware, ...] = ()


def production_chain(
    *,
    settings: MeshSettings,
    principal_key: str,
    access: AccessTable,
    clock: Clock,
    tracer: Tracer | None = None,
    observe: Observe | None = None,
    root_ratio: float = 0.0,
    chance: Callable[[], float] = random.random,
) -> Chain:
    """Return the chain that every process of the mesh runs.

    `principal_key` is `Settings.principal_key`; `observe` counts calls; `root_ratio` is the share
    of calls without a trace that begin a recorded one.
    """
    callers = CallerTokens(KeyRing.parse(settings.secret.get_secret_value(), "caller"), clock)
    principals = PrincipalTokens(KeyRing.parse(principal_key, "principal"), clock)
    tracer = tracer or trace.get_tracer("paymesh.mesh")
    return Chain(
        incoming=(
            IncomingTelemetry(clock, tracer, observe, root_ratio, chance),
            IncomingErrorMapping(),
            IncomingShedding(settings.calls_in_flight_max),
            IncomingDeadline(settings.deadline_reserve_seconds),
            IncomingContext(callers, principals),
            IncomingAuthorisation(access),
            IncomingValidation(),
        ),
        outgoing=(
            OutgoingTelemetry(clock, tracer, observe),
            OutgoingDeadline(settings.deadline_default_seconds),
            OutgoingBreaker(clock, settings.breaker_failures, settings.breaker_open_seconds),
            OutgoingContext(callers, principals, has_tls=settings.has_tls),
        ),
    )
