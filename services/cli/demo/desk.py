"""Two people at the exception desk: one proposes, the other decides; the rest comes by deadline.

Only some exceptions get their attention, as in a busy house. What they propose is mostly the
default action, sometimes another one that is always safe; and now and then the second person says
no, so that the deadline decides after all.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, replace
from typing import Final

from paymesh.payment.v1 import (
    EXCEPTION_STATE_OPEN,
    EXCEPTION_STATE_PROPOSED,
    DecideResolutionRequest,
    ListExceptionsRequest,
    PaymentException,
    PaymentServiceStub,
    ProposeResolutionRequest,
)

from common.context import CallContext, bound
from common.errors import PaymeshError
from services.cli.operator import NAME, Operator

MAKER: Final = "desk-maker"
CHECKER: Final = "desk-checker"

_LOOK_EVERY_SECONDS: Final = 1.0
_ATTENTION: Final = 0.6
_REJECTED: Final = 0.2
_TIMEOUT_SECONDS: Final = 5.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the two people do about an exception."""

    action: str
    """What the maker proposes; empty when nobody looks at it."""
    approved: bool = True


def judge(seed: int, exception: PaymentException) -> Judgement:
    """Return what the people do, by chance of the seed and the exception's number alone."""
    chance = random.Random(f"{seed}:desk:{exception.id}")  # noqa: S311 - no secret
    if chance.random() >= _ATTENTION:
        return Judgement("")
    # `FAIL` and `MOVE_TO_UNCLAIMED` need a statement of the channel, which nobody has read.
    safe = [one for one in exception.actions if one in ("RETURN", "RETRY", "ASK", "DISMISS")]
    action = chance.choice(safe or [exception.default_action])
    return Judgement(action, approved=chance.random() >= _REJECTED)


class Desk:
    """The two people; `work` until cancelled."""

    def __init__(self, operator: Operator, seed: int) -> None:
        self._seed = seed
        self._stub = operator.stub(PaymentServiceStub, "payment")
        self._contexts = {
            role: CallContext(
                principal=replace(operator.principal, actor_id=name, roles=(role,)), caller=NAME
            )
            for role, name in (("desk_maker", MAKER), ("desk_checker", CHECKER))
        }
        self._rejected: set[str] = set()
        self.decided = 0
        """Resolutions that the checker approved."""

    async def work(self) -> None:
        """Look at what is open, again and again; what cannot be decided now comes again."""
        while True:
            try:
                await self._look()
            except PaymeshError as error:  # away, or somebody was quicker: the next look shows
                _log.debug("the desk could not work: %s", error)
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _look(self) -> None:
        with bound(self._contexts["desk_maker"]):
            found = await self._stub.ListExceptions(
                ListExceptionsRequest(page_size=1000), timeout=_TIMEOUT_SECONDS
            )
        for exception in found.exceptions:
            judgement = judge(self._seed, exception)
            if not judgement.action or exception.id in self._rejected:
                continue
            if exception.state == EXCEPTION_STATE_OPEN:
                await self._propose(exception, judgement)
            elif exception.state == EXCEPTION_STATE_PROPOSED:
                await self._decide(exception, judgement)

    async def _propose(self, exception: PaymentException, judgement: Judgement) -> None:
        request = ProposeResolutionRequest(
            exception_id=exception.id,
            action=judgement.action,
            reason="looked at by a person",
            version=exception.version,
        )
        with bound(self._contexts["desk_maker"]):
            answer = await self._stub.ProposeResolution(request, timeout=_TIMEOUT_SECONDS)
        await self._decide(answer.exception, judgement)

    async def _decide(self, exception: PaymentException, judgement: Judgement) -> None:
        request = DecideResolutionRequest(
            exception_id=exception.id,
            approved=judgement.approved,
            reason="looked at by another person",
            version=exception.version,
        )
        with bound(self._contexts["desk_checker"]):
            await self._stub.DecideResolution(request, timeout=_TIMEOUT_SECONDS)
        if judgement.approved:
            self.decided += 1
        else:
            self._rejected.add(exception.id)
