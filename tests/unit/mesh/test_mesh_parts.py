"""The small parts of the mesh: deadlines in buckets, kept metadata, chain, breaker, budget."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paymesh.mesh.connect import connect
from paymesh.mesh.deadlines import Deadlines
from paymesh.mesh.frames import KEPT_ENTRIES_MAX, MetadataReader, MetadataWriter, ProtocolError
from paymesh.mesh.stream_channel import StreamSettings
from paymesh.mesh.v1 import Call, EchoRequest, EchoServiceStub

from common.clock import SystemClock
from common.context import CallContext
from common.embedded import ports
from common.errors import Outcome, RemoteError, Retry
from common.mesh.calling import Calling, CallingChannel, RetryBudget
from common.mesh.chain_order import order
from common.mesh.lateness import Lateness
from common.mesh.middleware.breaker import OutgoingBreaker
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware
from tests.unit.mesh.test_mesh_proofs import HandClock


async def test_deadlines_expire_never_early_and_in_order() -> None:
    loop = asyncio.get_running_loop()
    expired: asyncio.Queue[tuple[str, float]] = asyncio.Queue()
    deadlines: Deadlines[str] = Deadlines(
        lambda item: expired.put_nowait((item, loop.time())), loop.time
    )
    start = loop.time()
    due = {"c": 0.06, "a": 0.01, "b": 0.03, "gone": 0.02}
    buckets = {item: deadlines.add(item, start + after) for item, after in due.items()}
    buckets["gone"].discard("gone")
    async with asyncio.timeout(10):
        ends = [await expired.get() for _ in range(3)]
    assert [item for item, _ in ends] == ["a", "b", "c"]
    # To the microsecond: a clock of whole milliseconds may hit the instant itself.
    assert all(round(at - start, 6) >= due[item] for item, at in ends)


async def test_deadlines_of_the_past_expire_soon() -> None:
    expired = asyncio.Event()
    loop = asyncio.get_running_loop()
    deadlines: Deadlines[str] = Deadlines(lambda _: expired.set(), loop.time)
    deadlines.add("late", loop.time() - 100)
    await asyncio.wait_for(expired.wait(), 10)


async def test_deadlines_nearer_than_the_first_come_first() -> None:
    expired: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    deadlines: Deadlines[str] = Deadlines(expired.put_nowait, loop.time)
    deadlines.add("far", loop.time() + 3_600)
    deadlines.add("near", loop.time() + 0.01)
    assert await asyncio.wait_for(expired.get(), 10) == "near"
    assert expired.empty()
    deadlines.close()


KEYS = st.sampled_from(["a", "b", "traceparent", "x-bin"])
ENTRIES = st.lists(st.tuples(KEYS, st.integers(0, 2_000)), max_size=6)


@given(st.lists(ENTRIES, max_size=40))
def test_metadata_is_read_as_it_was_written(calls: list[list[tuple[str, int]]]) -> None:
    """Whatever is kept, replaced or too large to keep: each call carries its own pairs."""
    writer, reader = MetadataWriter(), MetadataReader()
    # Start near the end of the slots, so that they are reused within a few calls.
    writer._next = KEPT_ENTRIES_MAX - 3
    for entries in calls:
        pairs: list[tuple[str, str | bytes]] = [
            (key, b"%d" % number if key.endswith("-bin") else str(number) * (number % 200))
            for key, number in entries
        ]
        call = Call(call_id=1)
        indexes, new, _ = writer.find(pairs)
        call.metadata_indexes.extend(indexes)
        writer.add(call, new)
        assert sorted(reader.read(call)) == sorted(pairs)


def test_metadata_that_repeats_is_named_by_number() -> None:
    writer, reader = MetadataWriter(), MetadataReader()
    pairs = [("a", "1"), ("b", "2")]
    first, second = Call(), Call()
    writer.add(first, writer.find(pairs)[1])
    second.metadata_indexes.extend(writer.find(pairs)[0])
    assert not second.metadata
    assert reader.read(first) == reader.read(second) == (("a", "1"), ("b", "2"))


def test_metadata_never_sent_is_refused() -> None:
    with pytest.raises(ProtocolError):
        MetadataReader().read(Call(metadata_indexes=[1]))


class Recording(OutgoingMiddleware):
    """Notes what it sees."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name = name
        self.seen = seen


class OnlyBefore(Recording):
    """Looks at beginnings."""

    def before(self, call: OutgoingCall) -> None:
        """Note it."""
        self.seen.append(f"before {self.name}")


class OnlyAfter(Recording):
    """Looks at ends."""

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Note it."""
        self.seen.append(f"after {self.name}")


class Both(OnlyBefore, OnlyAfter):
    """Looks at both."""


def make_call(target: str = "account") -> OutgoingCall:
    """Return a call to a target."""
    return OutgoingCall("/p.S/M", "x", target, CallContext(), 0.0, None, [], is_local=False)


def test_order_runs_ends_of_those_that_saw_the_beginning() -> None:
    seen: list[str] = []
    chain = [Both("1", seen), OnlyAfter("2", seen), OnlyBefore("3", seen), Both("4", seen)]
    befores, afters = order(chain, OutgoingMiddleware)
    call = make_call()
    for before in befores:
        before(call)
    assert seen == ["before 1", "before 3", "before 4"]
    ended = {}
    for passed, ends in enumerate(afters):
        seen.clear()
        for after in ends:
            after(call, None)
        ended[passed] = list(seen)
    assert ended == {
        0: [],
        1: ["after 2", "after 1"],
        2: ["after 2", "after 1"],
        3: ["after 4", "after 2", "after 1"],
    }


def away() -> RemoteError:
    """Return the failure that breakers count."""
    return RemoteError(
        remote_reason="UNAVAILABLE",
        remote_message="away",
        outcome=Outcome.UNKNOWN,
        retry=Retry.SAME_ID,
    )


def test_breaker_opens_tries_once_and_closes() -> None:
    clock = HandClock()
    breaker = OutgoingBreaker(clock, failures_max=3, open_seconds=1.0)
    call = make_call()
    for _ in range(3):
        breaker.before(call)
        breaker.after(call, away())
    with pytest.raises(Exception, match="could not be reached") as caught:
        breaker.before(call)
    assert getattr(caught.value, "outcome", None) is Outcome.NOT_EXECUTED
    breaker.before(make_call("another"))
    clock.seconds += 1.1
    breaker.before(call)
    with pytest.raises(Exception, match="could not be reached"):
        breaker.before(call)
    breaker.after(call, away())
    with pytest.raises(Exception, match="could not be reached"):
        breaker.before(call)
    clock.seconds += 1.1
    breaker.before(call)
    breaker.after(call, None)
    breaker.before(call)
    breaker.before(call)


def test_breaker_does_not_count_answers() -> None:
    breaker = OutgoingBreaker(HandClock(), failures_max=2, open_seconds=1.0)
    refused = RemoteError(
        remote_reason="INSUFFICIENT_FUNDS",
        remote_message="no",
        outcome=Outcome.NOT_EXECUTED,
        retry=Retry.NEW_ID,
    )
    call = make_call()
    for _ in range(10):
        breaker.before(call)
        breaker.after(call, refused)


def test_budget_bounds_repeats_to_a_share_of_successes() -> None:
    budget = RetryBudget()
    spent = 0
    while budget.spend():
        spent += 1
    assert spent == 10
    for _ in range(10):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def overloaded() -> RemoteError:
    """Return the failure of a call that never left."""
    return RemoteError(
        remote_reason="OVERLOADED",
        remote_message="too many",
        outcome=Outcome.NOT_EXECUTED,
        retry=Retry.AFTER_DELAY,
    )


def test_breaker_opens_although_calls_beyond_the_bound_are_refused_in_between() -> None:
    """A target that stands still fills its bound: what never left says nothing good of it."""
    breaker = OutgoingBreaker(HandClock(), failures_max=3, open_seconds=1.0)
    call = make_call()
    for _ in range(3):
        breaker.after(call, away())
        breaker.after(call, overloaded())
    with pytest.raises(Exception, match="could not be reached"):
        breaker.before(call)


def test_breaker_counts_a_call_that_was_given_up_when_its_time_was_over() -> None:
    """The call that it was made for may end first, and cancels it."""
    clock = HandClock()
    breaker = OutgoingBreaker(clock, failures_max=2, open_seconds=1.0)
    call = make_call()
    call.deadline_at = clock.seconds + 1.0
    for _ in range(5):
        breaker.after(call, asyncio.CancelledError())
    breaker.before(call)
    clock.seconds += 1.0
    for _ in range(2):
        breaker.after(call, asyncio.CancelledError())
    with pytest.raises(Exception, match="could not be reached"):
        breaker.before(call)


def test_breaker_tries_again_although_a_try_never_told_its_end() -> None:
    clock = HandClock()
    breaker = OutgoingBreaker(clock, failures_max=1, open_seconds=1.0)
    call = make_call()
    breaker.after(call, away())
    clock.seconds += 1.1
    breaker.before(call)
    with pytest.raises(Exception, match="could not be reached"):
        breaker.before(call)
    clock.seconds += 1.1
    breaker.before(call)


def test_frames_that_have_waited_are_late_by_as_much() -> None:
    """Whatever the two clocks say, and however long the way takes."""
    lateness = Lateness()
    assert lateness.measure(1_000.0, 5.0) == 0
    assert lateness.measure(1_001.0, 5.9) == 0
    assert lateness.measure(1_002.0, 7.0) == pytest.approx(0.1)
    waited = [lateness.measure(1_003.0 + one, 17.0) for one in range(10)]
    assert waited == pytest.approx([9.1 - one for one in range(10)])
    assert lateness.measure(1_020.0, 24.9) == 0


def test_sender_whose_clock_stood_still_is_not_late_for_ever() -> None:
    lateness = Lateness()
    lateness.measure(1_000.0, 5.0)
    late = [lateness.measure(1_001.0 + one / 10, 66.0 + one / 10) for one in range(30)]
    assert late[0] == pytest.approx(60)
    assert late[-1] == pytest.approx(0)


class _Seen(OutgoingMiddleware):
    """Notes how attempts end."""

    def __init__(self) -> None:
        self.begun = 0
        self.ends: list[BaseException | None] = []

    def before(self, call: OutgoingCall) -> None:
        self.begun += 1

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        self.ends.append(error)


async def test_repeat_that_is_given_up_tells_the_middleware_its_end() -> None:
    """Or a breaker would wait for ever for the end of its try."""
    seen = _Seen()
    calling = Calling(
        middleware=(seen,),
        clock=SystemClock(),
        retries_max=3,
        retry_pause_seconds=0.001,
        message_bytes_max=65_536,
    )
    # Nobody listens there: the first attempt fails, the second waits for the connection.
    port = ports.choose(1)[0]
    first = StreamSettings(patience_seconds=0.0, backoff_first_seconds=30.0)
    async with connect(f"127.0.0.1:{port}", "stream", settings=first) as inner:
        channel = CallingChannel(inner, calling, caller="shop", target="echo")
        stub = EchoServiceStub(channel)
        call = asyncio.ensure_future(stub.Echo(EchoRequest(), timeout=60))
        async with asyncio.timeout(10):
            while seen.begun < 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert len(seen.ends) == 2
    assert isinstance(seen.ends[0], RemoteError)
    assert isinstance(seen.ends[1], asyncio.CancelledError)
