"""Asks a channel to close a charge that nobody has paid."""

from __future__ import annotations

from common.context import CallContext
from services.channel.domain import Charge, ChargeState
from services.channel.flows.parts import Parts
from services.channel.flows.query_charge import (
    fail_unsent,
    find_visible_charge,
    is_open,
    question_of,
    take_answer,
)
from services.channel.flows.read_result import outcome_unknown
from services.channel.results import ChannelError, Verb


async def close_charge(parts: Parts, reference: str, call: CallContext) -> tuple[Charge, bool]:
    """Return a charge after its channel was asked to close it.

    "Paid already" is a success. A channel that cannot close is asked how the charge stands; what is
    then still open stays open, and the caller comes again. The second value as in `query_charge`.

    Raises:
        NotFoundError: no such charge, or another merchant's.
        ChannelOutcomeUnknownError: nobody knows whether it was closed.
    """
    charge = await find_visible_charge(parts, reference, call)
    if charge.state is ChargeState.NOT_SENT:
        return await fail_unsent(parts, charge, call), False
    if not is_open(charge):
        return charge, False
    guard = parts.catalogue.find(charge.channel).guard
    can_close = Verb.CLOSE in guard.capabilities
    try:
        ask = guard.close if can_close else guard.query
        result = await ask(question_of(charge))
    except ChannelError as error:
        raise outcome_unknown(charge.channel, error.reason) from error
    return await take_answer(parts, charge, result, "close" if can_close else "query", call)
