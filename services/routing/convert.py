"""Domain ↔ contract."""

from __future__ import annotations

from paymesh.routing.v1 import Candidate, ChooseChannelResponse, Rejection
from paymesh.routing.v1 import ChannelRule as RuleMessage

from services.routing.domain import ChannelRule, Choice


def rule_from_proto(message: RuleMessage) -> ChannelRule:
    """Return a rule; `amount_max_minor` is taken as it is sent."""
    return ChannelRule(
        channel=message.channel,
        product=message.product,
        currency_codes=tuple(message.currency_codes),
        amount_min_minor=message.amount_min_minor,
        amount_max_minor=message.amount_max_minor,
        weight=message.weight,
        suspended=message.suspended,
    )


def rule_to_proto(rule: ChannelRule) -> RuleMessage:
    """Return a rule as callers see it."""
    return RuleMessage(
        channel=rule.channel,
        product=rule.product,
        currency_codes=rule.currency_codes,
        amount_min_minor=rule.amount_min_minor,
        amount_max_minor=rule.amount_max_minor,
        weight=rule.weight,
        suspended=rule.suspended,
    )


def choice_to_proto(choice: Choice) -> ChooseChannelResponse:
    """Return a choice as callers see it."""
    return ChooseChannelResponse(
        candidates=[Candidate(channel=one.channel, reason=one.reason) for one in choice.candidates],
        rejections=[Rejection(channel=one.channel, reason=one.reason) for one in choice.rejections],
        rules_version=choice.rules_version,
    )
