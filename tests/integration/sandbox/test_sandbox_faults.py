"""Each fault of a call, at each party: what the caller sees, what moved, what is true after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest
from outside_parties import (
    Channels,
    Receiver,
    eventually,
    fault,
    misbehave,
    moved,
    outcome_of,
    pay_request,
    question_of,
    refund_of,
    usd,
)

from services.channel.guard import Guard
from services.channel.results import (
    ChannelOutcomeUnknownError,
    ChannelResult,
    DeclineCode,
    DeclinedError,
    PayRequest,
    ShowQrCode,
    State,
)
from services.sandbox.faults.plan import FaultKind
from services.sandbox.movements import MovementKind
from services.sandbox.serving import Sandbox

CODES = ("alipay_a", "unionpay_a")
BOTH = pytest.mark.parametrize("code", CODES)


@BOTH
async def test_declining_moves_nothing_and_stays_declined(
    channels: Channels, sandbox: Sandbox, code: str
) -> None:
    guard, request = channels.guard(code), pay_request()
    await misbehave(sandbox, fault(FaultKind.DECLINE))
    with pytest.raises(DeclinedError) as declined:
        await guard.pay(request)
    assert declined.value.decline.code is DeclineCode.INSUFFICIENT_FUNDS
    # The party remembers: its mind does not change when the plan does.
    await misbehave(sandbox)
    with pytest.raises(DeclinedError):
        await guard.pay(request)
    assert (await guard.query(question_of(request))).state in (State.FAILED, State.CLOSED)
    assert await moved(sandbox) == []
    other = pay_request()
    await channels.pay_for_good(guard, other)
    assert await moved(sandbox) == [(MovementKind.PAYMENT, other.reference, 1234)]


@BOTH
async def test_slow_answer_comes_after_the_deed(
    channels: Channels, sandbox: Sandbox, code: str
) -> None:
    request = pay_request()
    await misbehave(sandbox, fault(FaultKind.SLOW, verb="pay", delay_ms=1_500))
    with pytest.raises(ChannelOutcomeUnknownError):
        await channels.guard(code, timeout_seconds=0.5).pay(request)
    guard = channels.guard(code)
    found = await guard.query(question_of(request))
    assert found.state is (State.PENDING if code == "alipay_a" else State.SUCCEEDED)
    await misbehave(sandbox, fault(FaultKind.SLOW, verb="pay", delay_ms=1))
    await channels.pay_for_good(guard, request)
    assert await moved(sandbox) == [(MovementKind.PAYMENT, request.reference, 1234)]


async def test_lost_answers_are_closed_connections_without_a_byte(
    sandbox: Sandbox, session: aiohttp.ClientSession, channels: Channels
) -> None:
    """No error page, no status: the line just ends, and the next one works."""
    guard, request = channels.guard("alipay_a"), pay_request()
    for kind in (FaultKind.ANSWER_LOST_BEFORE, FaultKind.ANSWER_LOST_AFTER, FaultKind.OUTAGE):
        await misbehave(sandbox, fault(kind, delay_ms=50, hits_max=1))
        with pytest.raises(ChannelOutcomeUnknownError) as lost:
            await guard.pay(request)
        assert lost.value.metadata["cause"] in ("ServerDisconnectedError", "ClientOSError")
    await misbehave(sandbox)
    assert isinstance((await guard.pay(request)).next_action, ShowQrCode)
    async with session.get(f"{sandbox.url}/health") as response:
        assert response.status == 200


@BOTH
@pytest.mark.parametrize(
    ("kind", "is_done"),
    [(FaultKind.ANSWER_LOST_BEFORE, False), (FaultKind.ANSWER_LOST_AFTER, True)],
)
async def test_losing_the_answer_to_a_payment_leaves_the_truth_askable(
    channels: Channels, sandbox: Sandbox, code: str, kind: FaultKind, is_done: bool
) -> None:
    guard, request = channels.guard(code), pay_request()
    await misbehave(sandbox, fault(kind, verb="pay", hits_max=1))
    with pytest.raises(ChannelOutcomeUnknownError):
        await guard.pay(request)
    found = await guard.query(question_of(request))
    assert (found.state is not State.NOT_FOUND) == is_done
    assert len(await moved(sandbox)) == (is_done and code == "unionpay_a")
    await channels.pay_for_good(guard, request)
    assert (await guard.pay(request)).state is State.SUCCEEDED
    assert await moved(sandbox) == [(MovementKind.PAYMENT, request.reference, 1234)]


@BOTH
@pytest.mark.parametrize(
    ("kind", "is_done"),
    [(FaultKind.ANSWER_LOST_BEFORE, False), (FaultKind.ANSWER_LOST_AFTER, True)],
)
async def test_losing_the_answer_to_a_refund_leaves_the_truth_askable(
    channels: Channels, sandbox: Sandbox, code: str, kind: FaultKind, is_done: bool
) -> None:
    guard, request = channels.guard(code), pay_request(500)
    refund = refund_of(request, 200, await channels.pay_for_good(guard, request))
    await misbehave(sandbox, fault(kind, verb="refund", hits_max=1))
    with pytest.raises(ChannelOutcomeUnknownError):
        await guard.refund(refund)
    found = await guard.query_refund(refund)
    assert found.state is (State.SUCCEEDED if is_done else State.NOT_FOUND)
    for _ in range(2):
        assert (await guard.refund(refund)).state is State.SUCCEEDED
    assert (await moved(sandbox))[1:] == [(MovementKind.REFUND, refund.reference, 200)]


def _calls(
    guard: Guard, request: PayRequest, number: str
) -> dict[str, Callable[[], Awaitable[ChannelResult]]]:
    refund, other = refund_of(request, 1, number), question_of(pay_request())
    calls = {
        "query": lambda: guard.query(question_of(request)),
        # Not the paid one: closing that asks how it stands.
        "close": lambda: guard.close(other),
        "refund": lambda: guard.refund(refund),
        "query_refund": lambda: guard.query_refund(refund),
    }
    if guard.channel.startswith("unionpay"):
        del calls["close"]
    return calls


@BOTH
@pytest.mark.parametrize(
    "kind", [FaultKind.ANSWER_LOST_BEFORE, FaultKind.ANSWER_LOST_AFTER, FaultKind.OUTAGE]
)
async def test_losing_answers_of_one_verb_leaves_the_others_alone(
    channels: Channels, sandbox: Sandbox, code: str, kind: FaultKind
) -> None:
    guard, request = channels.guard(code), pay_request(500)
    number = await channels.pay_for_good(guard, request)
    calls = _calls(guard, request, number)
    assert (await calls["refund"]()).state is State.SUCCEEDED
    for name in calls:
        await misbehave(sandbox, fault(kind, verb=name, delay_ms=60_000))
        for other, call in calls.items():
            if other != name:
                assert isinstance(await outcome_of(call()), ChannelResult)
        assert isinstance(await outcome_of(calls[name]()), ChannelOutcomeUnknownError)
    assert len(await moved(sandbox)) == 2


@BOTH
async def test_outage_closes_the_whole_party_until_it_is_over(
    channels: Channels, sandbox: Sandbox, session: aiohttp.ClientSession, code: str
) -> None:
    party = code.removesuffix("_a")
    path = "/gateway.do" if party == "alipay" else "/gateway/api/queryTrans.do"
    other = channels.guard("unionpay_a" if party == "alipay" else "alipay_a")
    guard, sibling = channels.guard(code), channels.guard(f"{party}_b")
    request, later = pay_request(), pay_request()
    await misbehave(sandbox, fault(FaultKind.OUTAGE, party=party, delay_ms=600_000, hits_max=1))
    with pytest.raises(ChannelOutcomeUnknownError):
        await guard.pay(request)
    for one in (guard, sibling):
        with pytest.raises(ChannelOutcomeUnknownError):
            await one.query(question_of(request))
    with pytest.raises(aiohttp.ClientError):
        await session.post(sandbox.url + path, data=b"nobody looks at this")
    assert (await other.query(question_of(request))).state is State.NOT_FOUND
    assert await moved(sandbox) == []

    await misbehave(sandbox, fault(FaultKind.OUTAGE, party=party, delay_ms=200, hits_max=1))
    said: ChannelResult | Exception = await outcome_of(guard.query(question_of(request)))
    assert isinstance(said, ChannelOutcomeUnknownError)
    while not isinstance(said, ChannelResult):
        said = await outcome_of(guard.query(question_of(request)))
    assert said.state is State.NOT_FOUND
    await channels.pay_for_good(sibling, later)
    assert await moved(sandbox) == [(MovementKind.PAYMENT, later.reference, 1234)]


@BOTH
@pytest.mark.parametrize("amount_minor", [1, 2, 500])
async def test_taking_another_amount_is_the_truth_everywhere(
    channels: Channels, sandbox: Sandbox, receiver: Receiver, code: str, amount_minor: int
) -> None:
    guard = channels.guard(code)
    request = pay_request(amount_minor, notify_url=receiver.url)
    await misbehave(sandbox, fault(FaultKind.WRONG_AMOUNT))
    said = await outcome_of(guard.pay(request))
    assert isinstance(said, ChannelResult)
    if isinstance(said.next_action, ShowQrCode):
        assert await channels.scan(said.next_action.content) == 200
    else:
        assert said.state is State.CONFLICT
    ((kind, reference, taken),) = await moved(sandbox)
    assert (kind, reference) == (MovementKind.PAYMENT, request.reference)
    assert abs(taken - amount_minor) == 1
    assert taken > 0

    found = await guard.query(question_of(request))
    assert (found.state, found.conflict, found.money) == (State.CONFLICT, "money", usd(taken))
    again = await outcome_of(guard.pay(request))
    assert isinstance(again, ChannelResult)
    assert again.state is State.CONFLICT
    await eventually(lambda: len(receiver.received) >= 1)
    told = (await guard.parse_callback(receiver.received[0])).result
    assert (told.state, told.money, told.settlement) == (State.SUCCEEDED, usd(taken), usd(taken))

    # What was really taken is what can be given back.
    number = told.channel_transaction_no
    with pytest.raises(DeclinedError):
        await guard.refund(refund_of(request, taken + 1, number))
    assert (await guard.refund(refund_of(request, taken, number))).state is State.SUCCEEDED
    assert [one[2] for one in await moved(sandbox)] == [taken, taken]


async def test_alipay_refuses_a_refund_at_once_and_for_good(
    channels: Channels, sandbox: Sandbox
) -> None:
    guard, request = channels.guard("alipay_a"), pay_request(500)
    refund = refund_of(request, 500, await channels.pay_for_good(guard, request))
    await misbehave(sandbox, fault(FaultKind.REFUND_REFUSED))
    with pytest.raises(DeclinedError) as refused:
        await guard.refund(refund)
    assert refused.value.decline.code is DeclineCode.REFUND_CLOSED
    await misbehave(sandbox)
    with pytest.raises(DeclinedError):
        await guard.refund(refund)
    assert (await guard.query_refund(refund)).state is State.NOT_FOUND
    assert len(await moved(sandbox)) == 1
    other = refund_of(request, 500, "")
    assert (await guard.refund(other)).state is State.SUCCEEDED
    assert len(await moved(sandbox)) == 2


async def test_unionpay_accepts_a_refund_and_refuses_it_later(
    channels: Channels, sandbox: Sandbox, receiver: Receiver
) -> None:
    guard, request = channels.guard("unionpay_a"), pay_request(500)
    number = await channels.pay_for_good(guard, request)
    refund = refund_of(request, 500, number, receiver.url)
    await misbehave(sandbox, fault(FaultKind.REFUND_REFUSED))
    assert (await guard.refund(refund)).state is State.PENDING
    found = await guard.query_refund(refund)
    while found.state is State.PENDING:
        found = await guard.query_refund(refund)
    assert found.state is State.FAILED
    await eventually(lambda: len(receiver.received) >= 1)
    told = await guard.parse_callback(receiver.received[0])
    assert (told.result.state, told.result.reference) == (State.FAILED, refund.reference)
    await misbehave(sandbox)
    with pytest.raises(DeclinedError):
        await guard.refund(refund)
    assert len(await moved(sandbox)) == 1
    # What was refused can be asked for again under another number, whole.
    assert (await guard.refund(refund_of(request, 500, number))).state is State.SUCCEEDED


async def test_refusals_that_are_no_fault_come_first(channels: Channels, sandbox: Sandbox) -> None:
    """A fault is counted only where it happened: what cannot be done is not refused on demand."""
    request = pay_request(500)
    await misbehave(sandbox, fault(FaultKind.REFUND_REFUSED), fault(FaultKind.WRONG_AMOUNT))
    for code in CODES:
        guard = channels.guard(code)
        with pytest.raises(DeclinedError):
            await guard.refund(refund_of(request, 1, "202601012200100000000000000"))
    _, hits = await sandbox.conduct.read_plan()
    assert hits == [0, 0]


@BOTH
async def test_losing_answers_counts_also_what_the_party_refused(
    channels: Channels, sandbox: Sandbox, code: str
) -> None:
    """A refusal undoes what it wrote, but the next copy of the request is the next copy."""
    guard, request = channels.guard(code), pay_request()
    rule = fault(FaultKind.ANSWER_LOST_AFTER, verb="query", rate_ppm=500_000)
    await misbehave(sandbox, rule)
    question = question_of(request)
    fates = [isinstance(await outcome_of(guard.query(question)), Exception) for _ in range(40)]
    _, (hits,) = await sandbox.conduct.read_plan()
    assert hits == sum(fates)
    assert 0 < hits < 40


@BOTH
async def test_equal_plans_give_equal_fates(
    channels: Channels, sandbox: Sandbox, code: str
) -> None:
    guard = channels.guard(code)
    rule = fault(FaultKind.ANSWER_LOST_BEFORE, verb="query", rate_ppm=500_000)
    requests = [replace(pay_request(), reference=f"pay0000{number}") for number in range(30)]
    runs = []
    for seed in (1, 1, 2):
        await misbehave(sandbox, rule, seed=seed)
        said = [await outcome_of(guard.query(question_of(one))) for one in requests]
        runs.append([isinstance(one, Exception) for one in said])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


async def test_rules_choose_by_merchant_amount_and_number_of_hits(
    channels: Channels, sandbox: Sandbox
) -> None:
    a, b = channels.guard("alipay_a"), channels.guard("alipay_b")
    number = channels.credentials.channels["alipay_a"].config["app_id"]
    rule = replace(fault(FaultKind.DECLINE, hits_max=1), merchant_number=number, amount_minor=1000)
    await misbehave(sandbox, rule)
    for guard, amount_minor, is_declined in (
        (b, 1000, False),
        (a, 999, False),
        (a, 1000, True),
        (a, 1000, False),
    ):
        said = await outcome_of(guard.pay(pay_request(amount_minor)))
        assert isinstance(said, DeclinedError) == is_declined
    question = pay_request(77)
    await a.pay(question)
    lost = replace(fault(FaultKind.ANSWER_LOST_AFTER, verb="query"), amount_minor=77)
    await misbehave(sandbox, lost)
    assert isinstance(await outcome_of(a.query(question_of(question))), ChannelOutcomeUnknownError)
    assert isinstance(await outcome_of(a.query(question_of(pay_request(77)))), ChannelResult)
