"""What the outside parties did survives them: state, ledger, and the callbacks that they owe."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
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
    sandbox_settings,
    usd,
)

from common.embedded.ports import choose
from services.channel.guard import Guard
from services.channel.results import (
    CallbackSignatureInvalidError,
    ChannelOutcomeUnknownError,
    ChannelResult,
    PayRequest,
    RawCallback,
    ShowQrCode,
    State,
)
from services.sandbox.credentials import SandboxCredentials
from services.sandbox.faults.plan import FaultKind
from services.sandbox.movements import list_movements
from services.sandbox.serving import Sandbox
from services.sandbox.store import Store

ROOT = Path(__file__).parents[3]


@asynccontextmanager
async def _process(
    folder: Path, credentials: SandboxCredentials, port: int, session: aiohttp.ClientSession
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A sandbox in a process of its own, answering; killed with -9 when the block is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.sandbox",
        cwd=ROOT,
        env={
            **os.environ,
            "PAYMESH_SANDBOX_PORT": str(port),
            "PAYMESH_SANDBOX_DATABASE_FILE": str(folder / "sandbox.sqlite"),
            "PAYMESH_SANDBOX_PARTIES_FILE": str(credentials.parties_file),
            "PAYMESH_SANDBOX_NOTIFY_INTERVALS_SECONDS": "[0.1, 0.2]",
        },
    )
    try:
        async with asyncio.timeout(30):
            while not await _answers(session, port):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _answers(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/health") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def test_killing_the_sandbox_loses_nothing(
    tmp_path: Path,
    credentials: SandboxCredentials,
    session: aiohttp.ClientSession,
    receiver: Receiver,
) -> None:
    """Kill -9 after the answers: the next process knows all and goes on calling back."""
    (port,) = choose(1)
    url = f"http://127.0.0.1:{port}"
    channels = Channels(credentials, session, url, url)
    receiver.answer = (500, b"not now")
    qr, card = channels.guard("alipay_a"), channels.guard("unionpay_a")
    scanned = pay_request(100, notify_url=receiver.url)
    charged = pay_request(200, notify_url=receiver.url)
    async with _process(tmp_path, credentials, port, session):
        await channels.pay_for_good(qr, scanned)
        number = await channels.pay_for_good(card, charged)
        await eventually(lambda: len(receiver.received) >= 2)
    before = len(receiver.received)
    async with _process(tmp_path, credentials, port, session):
        assert (await qr.query(question_of(scanned))).state is State.SUCCEEDED
        assert (await card.query(question_of(charged))).state is State.SUCCEEDED
        assert (await card.refund(refund_of(charged, 200, number))).state is State.SUCCEEDED
        await eventually(lambda: len(receiver.received) >= before + 2)
        # Acknowledged by each party's own manners, they stop.
        receiver.answer = (200, b"success")
        await eventually(lambda: len(receiver.received) >= before + 3)
    told = [(await qr.parse_callback(one)) for one in receiver.received if b"app_id" in one.body]
    assert {one.payment_reference for one in told} == {scanned.reference}
    store = Store(tmp_path / "sandbox.sqlite")
    moved = await store.run(lambda db: list_movements(db, after=0, limit=10))
    await store.close()
    assert [(one.reference, one.money.amount_minor) for one in moved[:2]] == [
        (scanned.reference, 100),
        (charged.reference, 200),
    ]
    assert moved[2].payment_reference == charged.reference


async def test_acknowledged_callbacks_are_not_repeated_after_a_restart(
    tmp_path: Path,
    credentials: SandboxCredentials,
    session: aiohttp.ClientSession,
    receiver: Receiver,
) -> None:
    settings = sandbox_settings(tmp_path, credentials)
    first = Sandbox(settings)
    async with first.running():
        channels = Channels(credentials, session, first.url, first.url)
        guard = channels.guard("alipay_a")
        await channels.pay_for_good(guard, pay_request(notify_url=receiver.url))
        await eventually(lambda: len(receiver.received) == 1)
        async with asyncio.timeout(10):
            while await _owed(first.store):  # noqa: ASYNC110 - asks the disk
                await asyncio.sleep(0.01)
    await first.close()
    second = Sandbox(settings)
    async with second.running():
        channels = Channels(credentials, session, second.url, second.url)
        guard = channels.guard("alipay_a")
        # A callback that comes after the restart shows that the courier is at work.
        await channels.pay_for_good(guard, pay_request(notify_url=receiver.url))
        await eventually(lambda: len(receiver.received) >= 2)
        assert len(receiver.received) == 2
    await second.close()


async def _owed(store: Store) -> int:
    (count,) = await store.run(
        lambda db: db.execute(
            "SELECT count(*) FROM notices WHERE acknowledged_at IS NULL"
        ).fetchone()
    )
    return int(count)


async def test_unreachable_receiver_gets_its_callback_later(
    channels: Channels, receiver: Receiver
) -> None:
    """Nobody listens at first; the callback waits with growing pauses and arrives."""
    receiver.answer = (503, b"")
    guard = channels.guard("unionpay_b")
    await channels.pay_for_good(guard, pay_request(notify_url=receiver.url))
    await eventually(lambda: len(receiver.received) >= 4)
    receiver.answer = (200, b"ok")
    before = len(receiver.received)
    await eventually(lambda: len(receiver.received) > before)


async def test_killing_the_sandbox_keeps_the_plan_its_counts_and_what_it_owes(
    tmp_path: Path,
    credentials: SandboxCredentials,
    session: aiohttp.ClientSession,
    receiver: Receiver,
) -> None:
    """Kill -9 twice: bounded faults do not come back, an outage goes on, callbacks keep order."""
    (port,) = choose(1)
    url = f"http://127.0.0.1:{port}"
    channels = Channels(credentials, session, url, url)
    settings = sandbox_settings(tmp_path, credentials)
    planned = Sandbox(settings)
    await misbehave(
        planned,
        fault(FaultKind.ANSWER_LOST_BEFORE, party="alipay", verb="pay", hits_max=1),
        fault(FaultKind.OUTAGE, party="unionpay", delay_ms=600_000),
        fault(FaultKind.CALLBACK_LATE, party="alipay", delay_ms=3_000),
        fault(FaultKind.CALLBACK_WRONG_SIGNATURE, party="alipay"),
        fault(FaultKind.CALLBACK_REORDERED, party="alipay"),
    )
    await planned.close()
    qr, card = channels.guard("alipay_a"), channels.guard("unionpay_a")
    request = pay_request(100, notify_url=receiver.url)
    async with _process(tmp_path, credentials, port, session):
        assert isinstance(await outcome_of(qr.pay(request)), ChannelOutcomeUnknownError)
        assert isinstance(await outcome_of(card.pay(pay_request())), ChannelOutcomeUnknownError)
    async with _process(tmp_path, credentials, port, session):
        result = await qr.pay(request)
        assert isinstance(result.next_action, ShowQrCode)
        assert await channels.scan(result.next_action.content) == 200
        assert isinstance(await outcome_of(card.pay(pay_request())), ChannelOutcomeUnknownError)
    async with _process(tmp_path, credentials, port, session):
        await eventually(lambda: len(receiver.received) >= 3)
    told = [await _told(qr, one) for one in receiver.received]
    assert told == [None, State.SUCCEEDED, State.PENDING]
    after = Sandbox(settings)
    _, hits = await after.conduct.read_plan()
    assert hits == [1, 1, 1, 1, 1]
    assert [one[1:] for one in await moved(after)] == [(request.reference, 100)]
    await after.close()


async def _told(guard: Guard, raw: RawCallback) -> State | None:
    try:
        return (await guard.parse_callback(raw)).result.state
    except CallbackSignatureInvalidError:
        return None


async def test_killing_a_misbehaving_sandbox_under_load_keeps_the_truth(
    tmp_path: Path,
    credentials: SandboxCredentials,
    session: aiohttp.ClientSession,
    receiver: Receiver,
) -> None:
    """Lost answers, outages, lying callbacks and kill -9 together: each payment is taken once."""
    (port,) = choose(1)
    url = f"http://127.0.0.1:{port}"
    channels = Channels(credentials, session, url, url)
    settings = sandbox_settings(tmp_path, credentials)
    callbacks = [kind for kind in FaultKind if kind.value.startswith("CALLBACK_")]
    planned = Sandbox(settings)
    await misbehave(
        planned,
        fault(FaultKind.ANSWER_LOST_BEFORE, rate_ppm=200_000),
        fault(FaultKind.ANSWER_LOST_AFTER, rate_ppm=200_000),
        fault(FaultKind.SLOW, rate_ppm=100_000, delay_ms=100),
        fault(FaultKind.OUTAGE, rate_ppm=10_000, delay_ms=100),
        *(fault(kind, rate_ppm=200_000, delay_ms=100) for kind in callbacks),
    )
    await planned.close()
    guards = [channels.guard("alipay_a"), channels.guard("unionpay_a")]
    requests = [pay_request(500, notify_url=receiver.url) for _ in range(60)]

    async def lives() -> None:
        for number in range(4):
            before = len(receiver.received)
            async with _process(tmp_path, credentials, port, session):
                # Killed as soon as it has got somewhere; the last one finishes.
                if number < 3:
                    await eventually(lambda: len(receiver.received) >= before + 5)  # noqa: B023
                else:
                    await paying
                    await _until_told(guards, receiver, {one.reference for one in requests})

    paying = asyncio.gather(
        *(_insist(channels, guards[n % 2], request) for n, request in enumerate(requests))
    )
    async with asyncio.timeout(60):
        await lives()
    after = Sandbox(settings)
    assert sorted(one[1:] for one in await moved(after)) == sorted(
        (request.reference, 500) for request in requests
    )
    await after.close()


async def _insist(channels: Channels, guard: Guard, request: PayRequest) -> None:
    """Pay by repeating the same request until the party says that it is done."""
    while True:
        result = await outcome_of(guard.pay(request))
        if isinstance(result, ChannelResult):
            if result.state is State.SUCCEEDED:
                return
            if isinstance(result.next_action, ShowQrCode):
                with suppress(aiohttp.ClientError):
                    await channels.scan(result.next_action.content)
        await asyncio.sleep(0.05)


async def _until_told(guards: list[Guard], receiver: Receiver, references: set[str]) -> None:
    """Wait until a callback of success came for each reference."""
    seen = 0
    while references:
        for raw in receiver.received[seen:]:
            guard = guards[0] if b"app_id=" in raw.body else guards[1]
            with suppress(CallbackSignatureInvalidError):
                result = (await guard.parse_callback(raw)).result
                if result.state is State.SUCCEEDED and result.money == usd(500):
                    references.discard(result.reference)
            seen += 1
        await asyncio.sleep(0.05)
