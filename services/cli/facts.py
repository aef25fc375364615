"""Facts and stories asked of every service that tells them; the only place that joins them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import paymesh.account.v1 as account
import paymesh.channel.v1 as channel
import paymesh.edge.v1 as edge
import paymesh.member.v1 as member
import paymesh.notify.v1 as notify
import paymesh.payment.v1 as payment
import paymesh.risk.v1 as risk
import paymesh.sandbox.v1 as sandbox
import paymesh.settlement.v1 as settlement
import paymesh.trade.v1 as trade
from paymesh.type.v1 import Fact, StoryItem

from services.cli.operator import Operator
from services.cli.timeline import in_order, name_events, related_ids

# Each service has messages of its own with the same fields, so that each can grow by itself.
TELLERS: Final[Mapping[str, tuple[Callable[[Any], Any], Any]]] = {
    "account": (account.AccountServiceStub, account),
    "channel": (channel.ChannelServiceStub, channel),
    "member": (member.MemberServiceStub, member),
    "notify": (notify.NotifyServiceStub, notify),
    "payment": (payment.PaymentServiceStub, payment),
    "risk": (risk.RiskServiceStub, risk),
    "settlement": (settlement.SettlementServiceStub, settlement),
    "trade": (trade.TradeServiceStub, trade),
}
"""Services that tell facts and stories."""

_TIMEOUT_SECONDS: Final = 30.0
_RELATED_MAX: Final = 1000
# No number is longer (the contracts).
_SUBJECT_LENGTH_MAX: Final = 64
# An event is heard within milliseconds, on a machine that is overloaded within a second or two.
_QUIET_LOOKS: Final = 5
_LOOK_EVERY_SECONDS: Final = 0.4


async def list_facts(operator: Operator, service: str, kind: str) -> list[Fact]:
    """Return all facts of a kind that a service tells, page by page."""
    make, messages = TELLERS[service]
    stub = operator.stub(make, service)
    facts: list[Fact] = []
    token = ""
    while True:
        answer = await stub.ListFacts(
            messages.ListFactsRequest(kind=kind, page_token=token), timeout=_TIMEOUT_SECONDS
        )
        facts.extend(answer.facts)
        token = answer.next_page_token
        if not token:
            return facts


async def list_unfinished(operator: Operator) -> dict[str, list[Fact]]:
    """Return what has not ended, by service; services with nothing are left out."""
    answers = await asyncio.gather(
        *(list_facts(operator, service, "unfinished") for service in TELLERS)
    )
    return {service: facts for service, facts in zip(TELLERS, answers, strict=True) if facts}


async def wait_until_finished(operator: Operator, seconds: float) -> bool:
    """Wait until nothing is unfinished any more; False when something still is after `seconds`.

    What a relay has told and a consumer has not heard yet is in the broker and in no row, so one
    look without a finding says little: it has to be so in several looks on end.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    quiet_looks = 0
    while quiet_looks < _QUIET_LOOKS:
        if loop.time() > until:
            return False
        quiet_looks = 0 if await list_unfinished(operator) else quiet_looks + 1
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    return True


@dataclass(frozen=True)
class Found:
    """What is known of a number."""

    stories: list[str]
    """The stories that it belongs to, the likeliest first."""
    alone: list[StoryItem]
    """What is told of it where it belongs to no story."""


async def find_stories(operator: Operator, subject: str) -> Found:
    """Ask every service which stories an id, number or reference belongs to.

    The subject may be a story's own id. Where nobody knows it, all are asked once more, and search
    where no index helps.
    """
    if len(subject) > _SUBJECT_LENGTH_MAX:
        return Found([], [])
    for thorough in (False, True):
        answers = await _ask_all(operator, subject_id=subject, page_size=1, thorough=thorough)
        stories = [
            story
            for answer in answers
            for story in (answer.biz_trace_id, *answer.other_biz_trace_ids)
            if story
        ]
        if not thorough:
            itself = await _ask_all(operator, biz_trace_id=subject, page_size=1)
            if any(answer.items for answer in itself):
                stories.insert(0, subject)
        alone = [item for answer in answers if not answer.biz_trace_id for item in answer.items]
        if stories or alone:
            return Found(list(dict.fromkeys(stories)), in_order(alone))
    return Found([], [])


async def tell_story(operator: Operator, biz_trace_id: str) -> list[StoryItem]:
    """Return everything that every service tells of a story, oldest first.

    First each tells what it knows by the story's id; then what they know of the events, requests
    and nouns that the others told of: who heard an event, which request was refused.
    """

    async def ask(service: str, make: Callable[[Any], Any], messages: Any) -> list[StoryItem]:
        stub = operator.stub(make, service)
        items: list[StoryItem] = []
        token = ""
        while True:
            request = messages.ListStoryRequest(biz_trace_id=biz_trace_id, page_token=token)
            answer = await stub.ListStory(request, timeout=_TIMEOUT_SECONDS)
            items.extend(answer.items)
            token = answer.next_page_token
            if not token:
                return items

    answers = await asyncio.gather(
        *(
            ask(service, make, messages)
            for service, (make, messages) in _story_tellers(operator).items()
        )
    )
    items = [item for answer in answers for item in answer]
    known = related_ids(items)
    for start in range(0, len(known), _RELATED_MAX):
        ids = known[start : start + _RELATED_MAX]
        related = await _ask_all(operator, biz_trace_id=biz_trace_id, related_ids=ids)
        items += [item for answer in related for item in answer.items]
    name_events(items)
    return in_order(items)


async def _ask_all(operator: Operator, **asked: Any) -> list[Any]:
    """Ask every service the same; `asked` are fields of ListStoryRequest."""
    return await asyncio.gather(
        *(
            operator.stub(make, service).ListStory(
                messages.ListStoryRequest(**asked), timeout=_TIMEOUT_SECONDS
            )
            for service, (make, messages) in _story_tellers(operator).items()
        )
    )


async def list_movements(operator: Operator) -> list[Any]:
    """Return the sandbox's own ledger: what the outside parties really did."""
    stub = operator.stub(sandbox.SandboxServiceStub, "sandbox")
    movements: list[Any] = []
    token = ""
    while True:
        answer = await stub.ListMovements(
            sandbox.ListMovementsRequest(page_token=token), timeout=_TIMEOUT_SECONDS
        )
        movements.extend(answer.movements)
        token = answer.next_page_token
        if not token:
            return movements


def _story_tellers(operator: Operator) -> dict[str, tuple[Callable[[Any], Any], Any]]:
    """Return who can tell of stories; of a ledger that stands alone, only itself."""
    tellers = {**TELLERS, "edge": (edge.EdgeServiceStub, edge)}
    return {service: how for service, how in tellers.items() if operator.knows(service)}
