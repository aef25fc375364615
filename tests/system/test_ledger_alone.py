"""The ledger is of use alone: with PostgreSQL, its client package, and nothing else of paymesh."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

import pytest
from paymesh.account import account_id_for, orders
from paymesh.account.ids import derive_id, new_id
from paymesh.account.ledger import LedgerClient, Patience
from paymesh.account.results import (
    CallRefusedError,
    LedgerAwayError,
    OutcomeUnknownError,
    TransferRefusedError,
)
from paymesh.account.v1 import AccountSpec, TransferSpec
from paymesh.mesh.identity import Identity

from tests.system.lone_ledger import SECRET, LoneLedger

STEP: orders.StepDetails = {"movement": "test.move", "reference_id": "ref-1"}


def step(transfer_id: str) -> orders.StepDetails:
    """The details of a step under an id of the test's choosing."""
    return {**STEP, "id": transfer_id}


@pytest.fixture(scope="module")
async def ledger(
    database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[LoneLedger]:
    log = tmp_path_factory.mktemp("ledger") / "log"
    async with LoneLedger(database_url, log) as running:
        yield running


@pytest.fixture
async def client(ledger: LoneLedger) -> AsyncIterator[LedgerClient]:
    async with ledger.client() as one:
        yield one


class Cast:
    """Fresh accounts: the world outside (X), two users (A, B), and what a user owes (D)."""

    def __init__(self) -> None:
        kinds = {
            "X": "channel_receivable",
            "A": "user_available",
            "B": "user_available",
            "D": "merchant_receivable",
        }
        self.ids = {name: new_id("acc") for name in kinds}
        self.specs = [
            AccountSpec(id=self.ids[name], owner_id=name, kind=kind, currency_code="EUR")
            for name, kind in kinds.items()
        ]

    def __getitem__(self, name: str) -> str:
        return self.ids[name]


@pytest.fixture
async def cast(client: LedgerClient) -> Cast:
    made = Cast()
    await client.open_accounts(made.specs)
    return made


async def available(client: LedgerClient, cast: Cast) -> dict[str, int]:
    """What may be moved out of each account."""
    found = await client.read_accounts(list(cast.ids.values()))
    return {name: found[one].balance.available_minor for name, one in cast.ids.items()}


async def test_booking_holding_and_reading_back(client: LedgerClient, cast: Cast) -> None:
    began_at = datetime.now(UTC)
    first = await client.transfer(cast["X"], cast["A"], 1000, "EUR", **STEP)
    assert first.is_booked
    assert first.booked_minor == 1000
    held = await client.hold(cast["A"], cast["B"], 600, "EUR", timeout_seconds=60, **STEP)
    assert (await available(client, cast))["A"] == 400
    posted = await client.post(held.transfer_id, 250, keep_rest=True, **STEP)
    assert posted.booked_minor == 250
    returned = await client.void(held.transfer_id, **STEP)
    assert returned.booked_minor == 350
    assert await available(client, cast) == {"X": 1000, "A": 750, "B": 250, "D": 0}
    kept = await client.read_transfers([first.transfer_id, new_id("tfr")])
    assert list(kept) == [first.transfer_id]
    assert [entry.balance_minor async for entry in client.list_entries(cast["A"])] == [1000, 750]
    assert (await client.read_balance_at(cast["A"], began_at)).balance_minor == 0
    assert first.booked_at is not None
    assert (await client.read_balance_at(cast["A"], first.booked_at)).balance_minor == 1000
    today = await client.read_business_date()
    assert first.business_date == today
    statement = await client.read_statement(cast["A"], today, today)
    assert (statement.opening_balance_minor, statement.closing_balance_minor) == (0, 750)
    assert (statement.entries_count, len(statement.entries)) == (2, 2)
    assert [account.id async for account in client.list_accounts("A")].count(cast["A"]) == 1
    assert "user_available" in {kind.code for kind in await client.list_kinds()}


async def test_refused_transfer_is_an_answer_and_an_error_on_request(
    client: LedgerClient, cast: Cast
) -> None:
    refused = await client.transfer(cast["A"], cast["B"], 1, "EUR", **STEP)
    assert (refused.status, refused.reason) == ("REFUSED", "INSUFFICIENT_FUNDS")
    assert refused.metadata == {"account_id": cast["A"]}
    with pytest.raises(TransferRefusedError, match="INSUFFICIENT_FUNDS"):
        refused.require()
    # The id is burned: the same order is refused for ever, though there is money now.
    await client.transfer(cast["X"], cast["A"], 1, "EUR", **STEP)
    order = orders.move(cast["A"], cast["B"], 1, "EUR", **step(refused.transfer_id))
    again = await client.book_one(order)
    assert (again.reason, again.replayed) == ("INSUFFICIENT_FUNDS", True)
    order.amount_minor = 2
    other = await client.book_one(order)
    assert (other.status, other.reason) == ("INVALID", "ID_CONFLICT")
    assert other.metadata["field"] == "amount_minor"


@pytest.mark.parametrize("way", ["unary", "stream"])
async def test_booking_more_than_a_call_takes_is_refused_at_once(
    ledger: LoneLedger, cast: Cast, way: Literal["unary", "stream"]
) -> None:
    longest: orders.StepDetails = {"movement": f"m.{'x' * 62}", "reference_id": "r" * 64}
    most = [orders.move(cast["X"], cast["A"], 1, "EUR", **longest) for _ in range(8000)]
    identity = Identity("ledger_client", SECRET)
    async with LedgerClient.connect(ledger.address, identity=identity, way=way) as client:
        assert all(one.is_booked for one in await client.book(most))
        with pytest.raises(CallRefusedError, match="no more than 8000") as too_many:
            await client.book([*most, orders.move(cast["X"], cast["A"], 1, "EUR", **STEP)])
        assert too_many.value.reason == "FIELD_INVALID"
        for one in most:
            one.reference_id = "r" * 600
        with pytest.raises(CallRefusedError) as too_large:
            await client.book(most)
        assert too_large.value.reason == "MESSAGE_TOO_LARGE"


async def test_telling_a_story_labels_what_is_booked(client: LedgerClient, cast: Cast) -> None:
    told = await client.in_story("invoice-77").transfer(cast["X"], cast["A"], 1, "EUR", **STEP)
    kept = await client.read_transfers([told.transfer_id])
    assert kept[told.transfer_id].biz_trace_id == "invoice-77"
    for nameless in ("invoice 77", "x" * 65):
        with pytest.raises(ValueError, match="no name of a story"):
            client.in_story(nameless)


async def test_chain_is_booked_all_or_none(client: LedgerClient, cast: Cast) -> None:
    def steps(second: int) -> list[TransferSpec]:
        return [
            orders.move(cast["X"], cast["A"], 100, "EUR", **STEP),
            orders.move(cast["A"], cast["B"], second, "EUR", **STEP),
        ]

    failed = await client.book_chain(steps(101))
    assert [one.reason for one in failed] == ["LINKED_TRANSFER_FAILED", "INSUFFICIENT_FUNDS"]
    assert await available(client, cast) == {"X": 0, "A": 0, "B": 0, "D": 0}
    assert all(one.is_booked for one in await client.book_chain(steps(60)))
    assert await available(client, cast) == {"X": 100, "A": 40, "B": 60, "D": 0}


async def test_batch_books_what_is_right_and_tells_what_is_wrong(
    client: LedgerClient, cast: Cast
) -> None:
    specs = [orders.move(cast["X"], cast["A"], 1, "EUR", **STEP) for _ in range(500)]
    specs[100].currency_code = "USD"
    specs[200].credit_account_id = new_id("acc")
    specs[300].amount_minor = 0
    results = await client.book(specs)
    assert {n: one.reason for n, one in enumerate(results) if not one.is_booked} == {
        100: "CURRENCY_MISMATCH",
        200: "ACCOUNT_NOT_FOUND",
        300: "AMOUNT_OUT_OF_RANGE",
    }
    assert (await available(client, cast))["A"] == 497


async def test_balancing_takes_what_there_is(client: LedgerClient, cast: Cast) -> None:
    await client.transfer(cast["X"], cast["A"], 70, "EUR", **STEP)
    taken = await client.transfer(cast["A"], cast["B"], 100, "EUR", balancing_debit=True, **STEP)
    assert taken.booked_minor == 70
    await client.transfer(cast["D"], cast["A"], 30, "EUR", **STEP)
    repaid = await client.transfer(cast["B"], cast["D"], 50, "EUR", balancing_credit=True, **STEP)
    assert repaid.booked_minor == 30
    assert await available(client, cast) == {"X": 70, "A": 30, "B": 40, "D": 0}


@pytest.mark.parametrize("way", ["stream", "unary"])
async def test_calls_fail_with_the_ledgers_own_words(
    ledger: LoneLedger, cast: Cast, way: str
) -> None:
    async with ledger.client(way=way) as client:
        with pytest.raises(CallRefusedError) as other_kind:
            await client.open_accounts(
                [AccountSpec(id=cast["A"], owner_id="A", kind="suspense", currency_code="EUR")]
            )
        assert other_kind.value.reason == "ACCOUNT_DIFFERS"
        assert other_kind.value.failure.metadata["field"] == "kind"
        with pytest.raises(CallRefusedError) as unknown:
            [entry async for entry in client.list_entries(new_id("acc"))]
        assert unknown.value.reason == "ACCOUNT_NOT_FOUND"


async def test_nobody_gets_in_without_the_secret_or_sees_another_world(
    ledger: LoneLedger, client: LedgerClient, cast: Cast
) -> None:
    strangers = [
        (None, "PERMISSION_DENIED"),
        (Identity("ledger_client", "run:guessed"), "UNAUTHENTICATED"),
        (Identity("somebody", SECRET), "PERMISSION_DENIED"),
    ]
    for identity, reason in strangers:
        async with LedgerClient.connect(ledger.address, identity=identity) as stranger:
            with pytest.raises(CallRefusedError) as refused:
                await stranger.read_accounts([cast["A"]])
            assert refused.value.reason == reason
    assert await client.read_accounts([cast["A"]])
    async with ledger.client(tenant_id="other") as other, ledger.client(mode="TEST") as test:
        assert await other.read_accounts([cast["A"]]) == {}
        assert await test.read_accounts([cast["A"]]) == {}


async def test_deriving_account_ids_needs_no_looking_up(client: LedgerClient) -> None:
    user = new_id("usr")
    account_id = account_id_for(user, "user_available", "EUR", tenant_id="default", mode="LIVE")
    spec = AccountSpec(id=account_id, owner_id=user, kind="user_available", currency_code="EUR")
    first, again = await client.open_accounts([spec]), await client.open_accounts([spec])
    assert first == again


def _in_business_zone() -> date:
    return datetime.now(ZoneInfo("Asia/Shanghai")).date()


async def test_cutting_the_day_by_the_command_line_parts_statements(
    ledger: LoneLedger, client: LedgerClient, cast: Cast
) -> None:
    # What a scheduler asks for each night, and may ask for again: the calendar's day.
    await ledger.command("books", "cut", "today")
    await ledger.command("books", "cut", "today")
    first_day = await client.read_business_date()
    assert first_day in (_in_business_zone() - timedelta(days=1), _in_business_zone())
    await client.transfer(cast["X"], cast["A"], 100, "EUR", **STEP)
    assert "CLOSED" in await ledger.command("books", "cut")
    next_day = await client.read_business_date()
    assert next_day == first_day + timedelta(days=1)
    await client.transfer(cast["A"], cast["B"], 30, "EUR", **STEP)
    before = await client.read_statement(cast["A"], first_day, first_day)
    after = await client.read_statement(cast["A"], next_day, next_day)
    both = await client.read_statement(cast["A"], first_day, next_day)
    assert (before.closing_balance_minor, before.entries_count) == (100, 1)
    assert (after.opening_balance_minor, after.closing_balance_minor) == (100, 70)
    assert (both.opening_balance_minor, both.debits_minor, both.credits_minor) == (0, 30, 100)
    assert "proof: holds" in await ledger.command("books", "proof")


async def test_stopping_and_starting_again_keeps_everything(
    database_url: str, ledger: LoneLedger, client: LedgerClient, cast: Cast
) -> None:
    await client.transfer(cast["X"], cast["A"], 5, "EUR", **STEP)
    assert await ledger.end(signal.SIGTERM) == 0
    impatient = Patience(deadline_seconds=0.5)
    async with ledger.client(impatient) as other:
        with pytest.raises(LedgerAwayError):
            await other.read_accounts([cast["A"]])
    # A call that is made meanwhile passes once it is back.
    waiting = asyncio.create_task(available(client, cast))
    await ledger.start()
    assert (await waiting)["A"] == 5


@pytest.mark.timeout(300)  # four starts of a process, on a machine that may be busy
async def test_killing_the_process_in_mid_call_books_each_id_once(
    ledger: LoneLedger, client: LedgerClient, cast: Cast
) -> None:
    """Four callers book without end, and the process is killed three times under them."""
    parent = new_id("ord")
    booked: set[str] = set()
    stop = asyncio.Event()
    patient = ledger.client(Patience(deadline_seconds=90))  # a start takes long on a busy machine

    async def book(caller: int) -> int:
        number = 0
        while not stop.is_set():
            specs = [
                orders.move(
                    cast["X"], cast["A"], 1, "EUR", **step(derive_id("tfr", parent, caller, n))
                )
                for n in range(number, number + 7)
            ]
            number += len(specs)
            booked.update(one.require().transfer_id for one in await patient.book(specs))
        return number

    callers = [asyncio.create_task(book(caller)) for caller in range(4)]
    for _ in range(3):
        before = len(booked)
        async with asyncio.timeout(60):
            while len(booked) < before + 150:
                for task in callers:
                    assert not task.done() or task.result()
                await asyncio.sleep(0.002)
        await ledger.end(signal.SIGKILL)
        await ledger.start()
    stop.set()
    asked = sum(await asyncio.gather(*callers))
    await patient.close()
    assert len(booked) == asked
    assert (await available(client, cast))["A"] == asked
    statement = await client.read_statement(cast["A"], *[await client.read_business_date()] * 2)
    assert (statement.closing_balance_minor, statement.entries_count) == (asked, asked)
    assert len({entry.transfer_id for entry in statement.entries}) == asked


async def test_outcome_that_nobody_told_in_time_is_called_unknown(
    ledger: LoneLedger, client: LedgerClient, cast: Cast
) -> None:
    """Stalled, it takes the call and says nothing; awake again, it tells what it did."""
    await client.transfer(cast["X"], cast["A"], 5, "EUR", **STEP)
    order = orders.move(cast["A"], cast["B"], 5, "EUR", **STEP)
    async with ledger.client(Patience(deadline_seconds=1.5, attempt_seconds=0.5)) as impatient:
        await impatient.read_accounts([cast["A"]])
        ledger.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknownError):
                await impatient.book_one(order)
        finally:
            ledger.process.send_signal(signal.SIGCONT)
    assert (await client.book_one(order)).is_booked
    assert (await available(client, cast))["B"] == 5


async def test_nothing_but_postgresql_was_looked_for(ledger: LoneLedger) -> None:
    said = ledger.log()
    assert "there is no broker" in said
    for word in ("amqp", "redis", "Traceback", '"level":"error"'):
        assert word not in said
