"""What every channel says when the line or the other side misbehaves: never more than is true."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from outside_parties import (
    CLOCK,
    Channels,
    Proxy,
    Receiver,
    eventually,
    fault,
    misbehave,
    moved,
    outcome_of,
    pay_request,
    question_of,
    refund_of,
)

from common import context
from common.context import CallContext
from services.channel.guard import ChannelCall, Guard, compare
from services.channel.results import (
    ChannelError,
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelRateLimitedError,
    ChannelResult,
    ChannelUnavailableError,
    DeclinedError,
    ShowQrCode,
    State,
    Verb,
)
from services.sandbox.cards import CardBehaviour
from services.sandbox.faults.plan import FaultKind, FaultRule
from services.sandbox.serving import Sandbox


def _closed_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


@pytest.mark.parametrize("misdeed", ["swallow", "cut", "drop", "500", "garbage", "tamper"])
async def test_no_believable_answer_is_an_unknown_outcome(
    channels: Channels, code: str, proxy: Proxy, misdeed: str
) -> None:
    guard = channels.guard(code, url=proxy.url, timeout_seconds=0.5)
    proxy.plan = [misdeed]
    request = pay_request()
    with pytest.raises(ChannelOutcomeUnknownError) as failed:
        await guard.pay(request)
    assert failed.value.outcome == "UNKNOWN"
    # Asking finds the truth, and a repeat under the same reference is safe either way.
    found = await guard.query(question_of(request))
    executed = misdeed in ("swallow", "cut", "tamper")
    assert (found.state is State.NOT_FOUND) != executed
    await channels.pay_for_good(guard, request)


@pytest.mark.parametrize("misdeed", ["swallow", "cut", "drop", "500", "garbage", "tamper"])
async def test_refund_without_believable_answer_is_unknown_and_repeatable(
    channels: Channels, code: str, proxy: Proxy, misdeed: str
) -> None:
    guard = channels.guard(code, url=proxy.url, timeout_seconds=0.5)
    request = pay_request(100)
    number = await channels.pay_for_good(guard, request)
    refund = refund_of(request, 100, number)
    proxy.plan = [misdeed]
    with pytest.raises(ChannelOutcomeUnknownError):
        await guard.refund(refund)
    assert (await guard.refund(refund)).state is State.SUCCEEDED


async def test_refused_connection_is_surely_not_executed(channels: Channels, code: str) -> None:
    guard = channels.guard(code, url=_closed_port())
    with pytest.raises(ChannelUnavailableError) as failed:
        await guard.pay(pay_request())
    assert failed.value.outcome == "NOT_EXECUTED"


async def test_unknown_host_is_surely_not_executed(channels: Channels, code: str) -> None:
    guard = channels.guard(code, url="http://no-such-host.invalid:9")
    with pytest.raises(ChannelUnavailableError):
        await guard.pay(pay_request())


async def test_busy_answer_is_surely_not_executed(
    channels: Channels, code: str, proxy: Proxy
) -> None:
    guard = channels.guard(code, url=proxy.url)
    proxy.plan = ["429"]
    with pytest.raises(ChannelRateLimitedError) as failed:
        await guard.pay(pay_request())
    assert failed.value.outcome == "NOT_EXECUTED"
    assert failed.value.retry_after_seconds is not None


async def test_wrong_address_is_invalid(channels: Channels, code: str) -> None:
    guard = channels.guard(code, gateway_url=f"{channels.url}/nothing-here")
    with pytest.raises(ChannelInvalidError):
        await guard.pay(pay_request())


@pytest.mark.parametrize("misdeed", ["swallow", "cut", "drop", "500", "garbage", "tamper", "429"])
async def test_accepted_payment_whose_question_fails_is_pending(
    channels: Channels, proxy: Proxy, misdeed: str
) -> None:
    guard = channels.guard("unionpay_a", url=proxy.url, timeout_seconds=1.0)
    proxy.plan = ["pass", misdeed]
    request = pay_request()
    if misdeed == "swallow":
        # The question's time is the verb's time: past the deadline only "unknown" is left.
        with pytest.raises(ChannelOutcomeUnknownError):
            await guard.pay(request)
    else:
        assert (await guard.pay(request)).state is State.PENDING
    assert (await guard.query(question_of(request))).state is State.SUCCEEDED


async def test_slow_bank_is_pending_until_it_knows(channels: Channels) -> None:
    guard = channels.guard("unionpay_a")
    for behaviour, final in (
        (CardBehaviour.APPROVE_SLOWLY, State.SUCCEEDED),
        (CardBehaviour.DECLINE_SLOWLY, State.FAILED),
    ):
        request = pay_request(behaviour=behaviour)
        assert (await guard.pay(request)).state is State.PENDING
        found = await guard.query(question_of(request))
        async with asyncio.timeout(10):
            while found.state is State.PENDING:
                await asyncio.sleep(0.05)
                found = await guard.query(question_of(request))
        assert found.state is final


async def test_wrong_key_of_ours_is_invalid(channels: Channels, code: str) -> None:
    other = code[:-1] + ("b" if code.endswith("a") else "a")
    key = channels.credentials.channels[other].config["private_key"]
    guard = channels.guard(code, private_key=key)
    with pytest.raises(ChannelInvalidError) as failed:
        await guard.pay(pay_request())
    assert failed.value.outcome == "NOT_EXECUTED"


async def test_answer_signed_by_another_key_is_unknown(channels: Channels) -> None:
    """Both parties' answers are believed by their own key only."""
    theirs = channels.credentials.channels["alipay_b"].config["alipay_public_key"]
    alipay = channels.guard("alipay_a", alipay_public_key=theirs)
    unionpay = channels.guard("unionpay_a", signer_name="somebody else")
    for guard in (alipay, unionpay):
        with pytest.raises(ChannelOutcomeUnknownError):
            await guard.pay(pay_request())


async def test_deadline_that_has_passed_sends_nothing(
    channels: Channels, code: str, proxy: Proxy
) -> None:
    guard = channels.guard(code, url=proxy.url)
    call = CallContext(deadline_at=CLOCK.monotonic() - 1)
    with context.bound(call), pytest.raises(ChannelUnavailableError):
        await guard.pay(pay_request())
    assert proxy.requests == 0


async def test_deadline_of_the_call_bounds_the_wait(
    channels: Channels, code: str, proxy: Proxy
) -> None:
    guard = channels.guard(code, url=proxy.url, timeout_seconds=60)
    proxy.plan = ["swallow"]
    call = CallContext(deadline_at=CLOCK.monotonic() + 0.5)
    with context.bound(call), pytest.raises(ChannelOutcomeUnknownError):
        await guard.pay(pay_request())


class _Watch:
    """A hook that notes what it sees."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.seen: list[str] = []

    def before(self, call: ChannelCall) -> None:
        if self.refuses:
            raise ChannelUnavailableError(channel=call.channel)
        self.seen.append(f"before {call.verb}")

    def after(
        self, call: ChannelCall, result: ChannelResult | None, error: BaseException | None
    ) -> None:
        said = type(error).__name__ if error else (result.state.value if result else "nothing")
        self.seen.append(f"after {call.verb} {said}")


async def test_hooks_see_every_call_and_may_refuse_it(
    channels: Channels, code: str, proxy: Proxy
) -> None:
    outer, breaker = _Watch(), _Watch(refuses=True)
    guard = channels.guard(code, url=proxy.url, hooks=(outer, breaker))
    with pytest.raises(ChannelUnavailableError):
        await guard.pay(pay_request())
    assert proxy.requests == 0
    assert outer.seen == ["before pay", "after pay ChannelUnavailableError"]
    breaker.refuses = False
    await guard.query(question_of(pay_request()))
    assert outer.seen[2:] == ["before query", "after query NOT_FOUND"]


async def test_secrets_and_card_numbers_show_nowhere(
    channels: Channels, guard: Guard, code: str, proxy: Proxy
) -> None:
    request = pay_request(behaviour=CardBehaviour.INVALID)
    assert request.card_number is not None
    number = request.card_number.get_secret_value()
    secrets = [number, channels.credentials.channels[code].config["private_key"][40:80]]
    said = [repr(request), repr(channels.credentials.channels[code])]
    adapter = guard._adapter
    said += [repr(vars(adapter)), repr(adapter._config), str(adapter._config)]  # type: ignore[attr-defined]
    faulty = channels.guard(code, url=proxy.url, timeout_seconds=0.5)
    proxy.plan = ["500", "garbage", "tamper", "drop"]
    for one in (guard, faulty, faulty, faulty, faulty):
        try:
            result = await one.pay(request)
        except ChannelError as error:
            said += [str(error), repr(error), repr(error.metadata), repr(vars(error))]
            said += [repr(error.__cause__), repr(error.__context__)]
        else:
            said.append(repr(result))
            if isinstance(result.next_action, ShowQrCode):
                secrets.append(result.next_action.content)
    said.append(repr(await guard.query(question_of(request))))
    for secret in secrets:
        assert not any(secret in text for text in said)


Misbehave = Callable[..., Awaitable[None]]


@pytest.fixture
async def plan(sandbox: Sandbox) -> AsyncIterator[Misbehave]:
    """Puts rules in force for one test."""

    async def put(*rules: FaultRule) -> None:
        await misbehave(sandbox, *rules)

    yield put
    await misbehave(sandbox)


async def _verdict(call: Awaitable[ChannelResult]) -> str:
    """Return all that a caller may conclude from a verb."""
    said = await outcome_of(call)
    return said.state.value if isinstance(said, ChannelResult) else f"{said.reason} {said.outcome}"


UNKNOWN = "CHANNEL_OUTCOME_UNKNOWN UNKNOWN"


@pytest.mark.parametrize(
    ("kind", "delay_ms", "verdict"),
    [
        (FaultKind.DECLINE, 0, "DECLINED NOT_EXECUTED"),
        (FaultKind.SLOW, 1_500, UNKNOWN),
        (FaultKind.ANSWER_LOST_BEFORE, 0, UNKNOWN),
        (FaultKind.ANSWER_LOST_AFTER, 0, UNKNOWN),
        (FaultKind.OUTAGE, 60_000, UNKNOWN),
    ],
)
async def test_paying_a_faulty_party_says_no_more_than_is_known(
    channels: Channels, code: str, plan: Misbehave, kind: FaultKind, delay_ms: int, verdict: str
) -> None:
    guard, hasty, request = channels.guard(code), _hasty(channels, code, kind), pay_request()
    await plan(fault(kind, verb="pay", delay_ms=delay_ms, hits_max=1))
    assert await _verdict(hasty.pay(request)) == verdict
    await plan()
    if kind is FaultKind.DECLINE:
        # For good: neither a question nor a repeat makes a payment of it.
        assert await _verdict(guard.query(question_of(request))) in ("FAILED", "CLOSED")
        assert await _verdict(guard.pay(request)) == verdict
    else:
        await channels.pay_for_good(guard, request)


def _hasty(channels: Channels, code: str, kind: FaultKind) -> Guard:
    """Return a guard that does not wait for slow answers."""
    return channels.guard(code, timeout_seconds=0.5 if kind is FaultKind.SLOW else 5.0)


@pytest.mark.parametrize(
    ("kind", "delay_ms"),
    [
        (FaultKind.SLOW, 1_500),
        (FaultKind.ANSWER_LOST_BEFORE, 0),
        (FaultKind.ANSWER_LOST_AFTER, 0),
        (FaultKind.OUTAGE, 60_000),
    ],
)
async def test_every_other_verb_of_a_faulty_party_is_unknown_and_repeatable(
    channels: Channels, code: str, plan: Misbehave, kind: FaultKind, delay_ms: int
) -> None:
    guard, hasty, request = channels.guard(code), _hasty(channels, code, kind), pay_request(100)
    refund = refund_of(request, 40, await channels.pay_for_good(guard, request))
    question = question_of(request)
    calls: dict[str, tuple[Callable[[Guard], Awaitable[ChannelResult]], str]] = {
        "query": (lambda guard: guard.query(question), "SUCCEEDED"),
        "refund": (lambda guard: guard.refund(refund), "SUCCEEDED"),
        "query_refund": (lambda guard: guard.query_refund(refund), "SUCCEEDED"),
    }
    if Verb.CLOSE in guard.capabilities:
        other = question_of(pay_request())
        calls["close"] = (lambda guard: guard.close(other), "NOT_FOUND")
    for verb, (call, verdict) in calls.items():
        await plan(fault(kind, verb=verb, delay_ms=delay_ms, hits_max=1))
        assert await _verdict(call(hasty)) == UNKNOWN
        await plan()
        assert await _verdict(call(guard)) == verdict


async def test_party_that_took_another_amount_is_a_conflict(
    channels: Channels, code: str, plan: Misbehave, receiver: Receiver
) -> None:
    guard, request = channels.guard(code), pay_request(notify_url=receiver.url)
    await plan(fault(FaultKind.WRONG_AMOUNT))
    result = await guard.pay(request)
    if isinstance(result.next_action, ShowQrCode):
        assert await channels.scan(result.next_action.content) == 200
        result = await guard.query(question_of(request))
    assert (result.state, result.conflict) == (State.CONFLICT, "money")
    assert result.money is not None
    assert result.money != request.money
    await eventually(lambda: len(receiver.received) >= 1)
    told = (await guard.parse_callback(receiver.received[0])).result
    compared = compare(told, request.reference, request.money)
    assert (compared.state, compared.money) == (State.CONFLICT, result.money)


async def test_refused_refund_is_declined_or_fails_later(
    channels: Channels, code: str, plan: Misbehave, sandbox: Sandbox
) -> None:
    guard, request = channels.guard(code), pay_request(100)
    refund = refund_of(request, 40, await channels.pay_for_good(guard, request))
    await plan(fault(FaultKind.REFUND_REFUSED))
    before = len(await moved(sandbox))
    said = await outcome_of(guard.refund(refund))
    if isinstance(said, ChannelResult):
        assert said.state is State.PENDING
        async with asyncio.timeout(10):
            while said.state is State.PENDING:
                said = await guard.query_refund(refund)
        assert said.state is State.FAILED
    else:
        assert isinstance(said, DeclinedError)
        assert said.outcome == "NOT_EXECUTED"
    await plan()
    assert await _verdict(guard.refund(refund)) == "DECLINED NOT_EXECUTED"
    assert len(await moved(sandbox)) == before


async def test_lying_callbacks_are_seen_through_and_questions_tell_the_truth(
    channels: Channels, code: str, plan: Misbehave, receiver: Receiver
) -> None:
    """Wrong amount, denial, strange reference, wrong signature: each is told from the right one."""
    guard, request = channels.guard(code), pay_request(notify_url=receiver.url)
    receiver.answer = (guard.acknowledgement.status, guard.acknowledgement.body)
    await plan(
        fault(FaultKind.CALLBACK_WRONG_SIGNATURE),
        fault(FaultKind.CALLBACK_WRONG_AMOUNT),
        fault(FaultKind.CALLBACK_REORDERED),
        fault(FaultKind.CALLBACK_CONTRADICTORY),
        fault(FaultKind.CALLBACK_UNKNOWN_REFERENCE),
    )
    await channels.pay_for_good(guard, request)
    await eventually(lambda: len(receiver.received) >= 6)
    verdicts, numbers = [], set()
    for raw in receiver.received:
        try:
            callback = await guard.parse_callback(raw)
        except ChannelError as error:
            verdicts.append(error.reason)
            continue
        numbers.add(callback.notice_id)
        result = compare(callback.result, request.reference, request.money)
        verdicts.append(f"CONFLICT {result.conflict}" if result.conflict else result.state.value)
    denied = "CLOSED" if Verb.CLOSE in guard.capabilities else "FAILED"
    assert sorted(verdicts) == sorted(
        [
            "CALLBACK_SIGNATURE_INVALID",
            "CONFLICT money",
            "CONFLICT reference",
            "SUCCEEDED",
            "PENDING",
            denied,
        ]
    )
    # None of them passes for a copy of another.
    assert len(numbers) == 5
    assert await _verdict(guard.query(question_of(request))) == "SUCCEEDED"
