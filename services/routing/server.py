"""The servicer of routing: converts, calls a flow, converts back."""

from __future__ import annotations

from typing import Any

import grpc
from paymesh.routing.v1 import (
    ChooseChannelRequest,
    ChooseChannelResponse,
    GetRulesRequest,
    GetRulesResponse,
    PutRulesRequest,
    PutRulesResponse,
    RoutingServiceServicer,
)

from common.audit import require_role
from common.clock import Clock
from common.context import current
from common.money import Money
from services.routing.convert import choice_to_proto, rule_from_proto, rule_to_proto
from services.routing.flows.choose_channel import choose_channel
from services.routing.flows.put_rules import ROLE, put_rules
from services.routing.rulebook import Rulebook
from services.routing.store import RuleStore

Context = grpc.aio.ServicerContext[Any, Any]


class RoutingServicer(RoutingServiceServicer):
    """`paymesh.routing.v1.RoutingService`."""

    def __init__(self, store: RuleStore, rulebook: Rulebook, clock: Clock) -> None:
        self._store = store
        self._rulebook = rulebook
        self._clock = clock

    async def ChooseChannel(  # noqa: N802 - named by the contract
        self, request: ChooseChannelRequest, context: Context
    ) -> ChooseChannelResponse:
        """Rank the channels for a payment."""
        choice = choose_channel(
            self._rulebook.rules,
            request.payment_id,
            request.product,
            Money(request.amount.currency_code, request.amount.amount_minor),
            frozenset(request.excluded_channels),
        )
        return choice_to_proto(choice)

    async def GetRules(  # noqa: N802 - named by the contract
        self, request: GetRulesRequest, context: Context
    ) -> GetRulesResponse:
        """Read the rules in force, from the table: an operator changes what it reads here."""
        require_role(current().principal, ROLE)
        await self._rulebook.load()
        rules = self._rulebook.rules
        return GetRulesResponse(
            rules=[rule_to_proto(rule) for rule in rules.rules], version=rules.version
        )

    async def PutRules(  # noqa: N802 - named by the contract
        self, request: PutRulesRequest, context: Context
    ) -> PutRulesResponse:
        """Replace the rules."""
        version = await put_rules(
            self._store,
            self._rulebook,
            self._clock,
            request_id=request.request_id,
            rules=tuple(rule_from_proto(rule) for rule in request.rules),
            expected_version=request.expected_version,
            reason=request.reason,
            call=current(),
        )
        return PutRulesResponse(version=version)
