"""The services around the simulated ones, played: fees, routes, risk and cards, always the same."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from paymesh.member.v1 import (
    MemberServiceServicer,
    RevealCardResponse,
    add_MemberServiceServicer_to_server,
)
from paymesh.risk.v1 import (
    VERDICT_BLOCK,
    VERDICT_PASS,
    AssessActionResponse,
    ResolveReservationResponse,
    RiskServiceServicer,
    add_RiskServiceServicer_to_server,
)
from paymesh.routing.v1 import (
    Candidate,
    ChooseChannelResponse,
    RoutingServiceServicer,
    add_RoutingServiceServicer_to_server,
)
from paymesh.settlement.v1 import (
    FeePlan,
    GetFeePlanResponse,
    SettlementServiceServicer,
    add_SettlementServiceServicer_to_server,
)

from common.service import Register

ROUTES: Final = {"balance": ("balance",), "qr_pay": ("simqr", "simqr2"), "quick_pay": ("simcard",)}
"""Which channels carry which product."""

BLOCKED_MINOR: Final = 66_600
"""An amount that risk never lets pass."""


class _Settlement(SettlementServiceServicer):
    async def GetFeePlan(self, request: Any, context: Any) -> Any:  # noqa: N802
        # Which merchants get their fees back on refunds is in their number, for ever.
        returns = request.merchant_id[-1] in "0123456789abcdef"
        plan = FeePlan(rate_ppm=6_000, returned_on_refund=returns, version=1)
        return GetFeePlanResponse(plan=plan, ttl_seconds=60)


class _Routing(RoutingServiceServicer):
    async def ChooseChannel(self, request: Any, context: Any) -> Any:  # noqa: N802
        candidates = [Candidate(channel=one, reason="played") for one in ROUTES[request.product]]
        return ChooseChannelResponse(candidates=candidates, rules_version=1)


class _Risk(RiskServiceServicer):
    async def AssessAction(self, request: Any, context: Any) -> Any:  # noqa: N802
        blocked = request.amount.amount_minor == BLOCKED_MINOR
        return AssessActionResponse(verdict=VERDICT_BLOCK if blocked else VERDICT_PASS)

    async def ResolveReservation(self, request: Any, context: Any) -> Any:  # noqa: N802
        return ResolveReservationResponse()


class _Member(MemberServiceServicer):
    async def RevealCard(self, request: Any, context: Any) -> Any:  # noqa: N802
        return RevealCardResponse(card_number="4111111111111111")


def neighbours() -> dict[str, Register]:
    """Return what each played service serves."""
    return {
        "settlement": partial(add_SettlementServiceServicer_to_server, _played(_Settlement)),
        "routing": partial(add_RoutingServiceServicer_to_server, _played(_Routing)),
        "risk": partial(add_RiskServiceServicer_to_server, _played(_Risk)),
        "member": partial(add_MemberServiceServicer_to_server, _played(_Member)),
    }


def _played(servicer: Any) -> Any:
    """Return a servicer that has only the methods that are called here."""
    servicer.__abstractmethods__ = frozenset()
    return servicer()
