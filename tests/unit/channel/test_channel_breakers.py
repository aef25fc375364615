"""A channel that does not answer gets no new payments; everything else still reaches it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from common.breaker import BreakerState
from common.context import CallContext, bound
from common.errors import Outcome
from common.money import Money
from services.channel.adapters import Adapter
from services.channel.breakers import Breakers
from services.channel.guard import Guard
from services.channel.results import (
    Advice,
    Blame,
    Callback,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelResult,
    ChannelUnavailableError,
    Decline,
    DeclineCode,
    DeclinedError,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    State,
)
from services.channel.transport import mark_written

AT = datetime(2026, 3, 1, tzinfo=UTC)
MONEY = Money("USD", 100)
PAY = PayRequest(reference="pay1", requested_at=AT, money=MONEY, subject="CD")
QUESTION = QueryRequest(reference="pay1", requested_at=AT, money=MONEY)
REFUND = RefundRequest(
    reference="rch1",
    requested_at=AT,
    money=MONEY,
    payment_reference="pay1",
    payment_requested_at=AT,
    payment_money=MONEY,
)
DECLINED = Decline(DeclineCode.INSUFFICIENT_FUNDS, Advice.OTHER_METHOD, Blame.PAYER)


@dataclass
class HandClock:
    """Time that moves when told to."""

    seconds: float = 0.0

    def now(self) -> datetime:
        """Return the same moment always."""
        return AT

    def monotonic(self) -> float:
        """Return the time set."""
        return self.seconds


class _Moody(Adapter):
    """An adapter in one mood for all verbs."""

    code = "moody"

    def __init__(self, channel: str = "moody_a") -> None:
        self.channel = channel
        self.mood = "well"
        self.asked = 0

    async def _answer(self, reference: str) -> ChannelResult:
        self.asked += 1
        if self.mood == "away":
            raise ConnectionRefusedError
        mark_written()
        if self.mood == "lost":
            raise ConnectionResetError
        if self.mood == "silent":
            await asyncio.Event().wait()
        if self.mood == "declining":
            raise DeclinedError(DECLINED, channel=self.channel, raw_code="51")
        if self.mood == "busy":
            raise ChannelRateLimitedError(channel=self.channel)
        return ChannelResult(state=State.SUCCEEDED, reference=reference, money=MONEY)

    async def pay(self, request: PayRequest) -> ChannelResult:
        """See the mood."""
        return await self._answer(request.reference)

    async def query(self, request: QueryRequest) -> ChannelResult:
        """See the mood."""
        return await self._answer(request.reference)

    async def close(self, request: QueryRequest) -> ChannelResult:
        """See the mood."""
        return await self._answer(request.reference)

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """See the mood."""
        return await self._answer(request.reference)

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """See the mood."""
        return await self._answer(request.reference)

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Fail on whatever comes."""
        raise KeyError(raw.body)


@dataclass
class Scene:
    """A channel behind a breaker that opens at three failures, for ten seconds."""

    clock: HandClock
    breakers: Breakers
    party: _Moody
    guard: Guard

    @property
    def state(self) -> BreakerState:
        """How the breaker stands."""
        return self.breakers.state_of(self.party.channel)

    async def fail(self, mood: str = "away", times: int = 3) -> None:
        """Let payments fail."""
        self.party.mood = mood
        for _ in range(times):
            with pytest.raises((ChannelUnavailableError, ChannelOutcomeUnknownError)):
                await self.guard.pay(PAY)


@pytest.fixture
def scene() -> Scene:
    """A closed breaker before a party that is well."""
    clock, party = HandClock(), _Moody()
    breakers = Breakers(clock, failures_max=3, open_seconds=10.0)
    guard = Guard(party, clock=clock, hooks=(breakers,), timeout_seconds=0.02)
    return Scene(clock, breakers, party, guard)


@pytest.mark.parametrize("mood", ["away", "lost", "silent"])
async def test_failures_in_a_row_refuse_new_payments_as_surely_not_executed(
    scene: Scene, mood: str
) -> None:
    await scene.fail(mood, 2)
    assert scene.state is BreakerState.CLOSED
    await scene.fail(mood, 1)
    assert scene.state is BreakerState.OPEN
    asked = scene.party.asked
    with pytest.raises(ChannelUnavailableError) as refused:
        await scene.guard.pay(PAY)
    assert scene.party.asked == asked
    assert refused.value.outcome is Outcome.NOT_EXECUTED
    assert refused.value.metadata["cause"] == "breaker"
    assert refused.value.retry_after_seconds == 10.0


async def test_open_breaker_lets_everything_through_but_new_payments(scene: Scene) -> None:
    await scene.fail()
    asked = scene.party.asked
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: scene.guard.query(QUESTION),
        lambda: scene.guard.close(QUESTION),
        lambda: scene.guard.refund(REFUND),
        lambda: scene.guard.query_refund(REFUND),
    ]
    for call in calls:
        with pytest.raises(ChannelUnavailableError):
            await call()
    assert scene.party.asked == asked + 4
    assert scene.state is BreakerState.OPEN


async def test_answered_question_closes_it(scene: Scene) -> None:
    await scene.fail()
    scene.party.mood = "well"
    await scene.guard.query(QUESTION)
    assert scene.state is BreakerState.CLOSED
    await scene.guard.pay(PAY)


async def test_one_payment_tries_after_the_pause_and_decides(scene: Scene) -> None:
    await scene.fail()
    scene.clock.seconds = 10.0
    assert scene.state is BreakerState.HALF_OPEN
    scene.party.mood = "silent"
    trying = asyncio.create_task(scene.guard.pay(PAY))
    await asyncio.sleep(0)
    with pytest.raises(ChannelUnavailableError, match="could not be reached") as refused:
        await scene.guard.pay(PAY)
    assert refused.value.metadata["cause"] == "breaker"
    with pytest.raises(ChannelOutcomeUnknownError):
        await trying
    assert scene.state is BreakerState.OPEN
    scene.clock.seconds = 20.0
    scene.party.mood = "well"
    await scene.guard.pay(PAY)
    assert scene.state is BreakerState.CLOSED


async def test_payment_that_its_caller_gave_up_leaves_the_trial_to_the_next(scene: Scene) -> None:
    await scene.fail()
    scene.clock.seconds = 10.0
    scene.party.mood = "silent"
    trying = asyncio.create_task(scene.guard.pay(PAY))
    await asyncio.sleep(0)
    trying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trying
    scene.party.mood = "well"
    await scene.guard.pay(PAY)
    assert scene.state is BreakerState.CLOSED


@pytest.mark.parametrize("mood", ["declining", "busy", "well"])
async def test_answers_of_any_kind_are_no_failures(scene: Scene, mood: str) -> None:
    for _ in range(3):
        await scene.fail(times=2)
        scene.party.mood = mood
        with suppress(DeclinedError, ChannelRateLimitedError):
            await scene.guard.pay(PAY)
    assert scene.state is BreakerState.CLOSED


async def test_caller_without_time_says_nothing_of_the_channel(scene: Scene) -> None:
    await scene.fail(times=2)
    call = CallContext(deadline_at=scene.clock.seconds + 0.1)  # less than the reserve
    with bound(call), pytest.raises(ChannelUnavailableError) as refused:
        await scene.guard.pay(PAY)
    assert refused.value.metadata["cause"] == "deadline"
    assert scene.state is BreakerState.CLOSED
    await scene.fail(times=1)
    assert scene.state is BreakerState.OPEN


async def test_callbacks_that_cannot_be_read_are_no_failures(scene: Scene) -> None:
    for _ in range(5):
        with pytest.raises(ChannelOutcomeUnknownError):
            await scene.guard.parse_callback(RawCallback(body=b"x"))
    assert scene.state is BreakerState.CLOSED


async def test_channels_do_not_share_a_breaker(scene: Scene) -> None:
    await scene.fail()
    other = Guard(_Moody("moody_b"), clock=scene.clock, hooks=(scene.breakers,))
    await other.pay(PAY)
    assert scene.state is BreakerState.OPEN
    assert scene.breakers.state_of("moody_b") is BreakerState.CLOSED
    assert {at["channel"]: value for value, at in scene.breakers.levels()} == {"moody_a": 1.0}
