"""The ledger's stores answer alike on PostgreSQL and on the model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import strategies as st

from common.errors import PaymeshError
from services.account.domain.accounts import AccountStatus
from services.account.domain.transfers import Transfer, TransferKind
from services.account.flows.change_account import (
    ChangeRequest,
    change_limits,
    set_account_buffering,
    set_account_status,
)
from services.account.flows.cut_day import cut_book
from services.account.flows.drain_buffers import drain_buffers
from services.account.flows.expire_holds import expire_holds
from services.account.store import lane
from services.account.store.statements import StatementStore
from tests.conformance.stores.ledger_cases import (
    ACCOUNTS,
    FIRST_DAY,
    IDS,
    LedgerSide,
    twin_sides,
    without_clock,
)
from tests.conformance.stores.twins import Side, Twins, try_examples

SCHEMA = "account"


@pytest.fixture
async def ledger(side: Side) -> AsyncIterator[LedgerSide]:
    """The ledger on one side, with its cast."""
    opened = LedgerSide(side)
    await opened.begin()
    yield opened
    await opened.close()


def reasons(results: list[Any]) -> list[str]:
    return [result.reason or f"{result.status}{'+' * result.replayed}" for result in results]


async def test_opening_accounts_again_changes_nothing(ledger: LedgerSide) -> None:
    before = await ledger.accounts.read(0, [ledger.account_id("A")])
    opened = await ledger.open([ledger.spec("A"), ledger.spec("B")])
    assert opened[0] == before[ledger.account_id("A")]
    assert opened[0].version == 1
    with pytest.raises(PaymeshError, match="open"):
        await ledger.open([replace(ledger.spec("A"), owner_id="another")])


async def test_opening_with_one_that_differs_opens_none(ledger: LedgerSide) -> None:
    new = replace(ledger.spec("B"), id=IDS.new("acc"))
    with pytest.raises(PaymeshError):
        await ledger.open([new, replace(ledger.spec("A"), owner_id="another")])
    assert await ledger.accounts.read(0, [new.id]) == {}


async def test_reading_accounts_of_an_owner_gives_those_of_its_world(ledger: LedgerSide) -> None:
    mine = replace(ledger.spec("B"), id=IDS.new("acc"), owner_id="owner-A", currency_code="EUR")
    other = replace(mine, id=IDS.new("acc"), mode="TEST")
    await ledger.open([mine, other])
    found = await ledger.accounts.list_of_owner("owner-A", "default", "LIVE")
    assert [(one.kind, one.currency_code) for one in found] == [
        ("merchant_pending", "EUR"),
        ("user_available", "USD"),
    ]


async def test_posting_answers_repeats_and_differences_exactly(ledger: LedgerSide) -> None:
    first = ledger.move(1, "R", "A", 100)
    assert reasons(await ledger.ledger.post([first])) == ["BOOKED"]
    assert reasons(await ledger.ledger.post([first])) == ["BOOKED+"]
    differing = replace(first, amount_minor=101)
    second = ledger.move(2, "A", "B", 500)
    answers = await ledger.ledger.post([differing, second, second, replace(second, movement="a.b")])
    assert reasons(answers) == [
        "ID_CONFLICT",
        "INSUFFICIENT_FUNDS",
        "INSUFFICIENT_FUNDS",
        "ID_CONFLICT",
    ]
    assert reasons(await ledger.ledger.post([second])) == ["INSUFFICIENT_FUNDS"]


async def test_holds_are_posted_in_part_voided_and_marked(ledger: LedgerSide) -> None:
    pending = ledger.move(2, "A", "B", 60, kind=TransferKind.PENDING)
    post = Transfer(
        id=ledger.transfer_id(3),
        kind=TransferKind.POST,
        pending_id=pending.id,
        amount_minor=20,
        keep_rest=True,
        movement="case.post",
        reference_id="ref",
    )
    void = replace(post, id=ledger.transfer_id(4), kind=TransferKind.VOID, amount_minor=0)
    void = replace(void, keep_rest=False)
    late = ledger.move(9, "A", "B", 5, kind=TransferKind.PENDING)
    early = replace(void, id=ledger.transfer_id(5), pending_id=late.id)
    answers = await ledger.ledger.post([ledger.move(1, "R", "A", 100), pending])
    answers += await ledger.ledger.post([post, early])
    answers += await ledger.ledger.post([void])
    answers += await ledger.ledger.post([late, replace(void, id=ledger.transfer_id(6))])
    assert reasons(answers) == [
        *["BOOKED"] * 5,
        "PENDING_ALREADY_VOIDED",
        "PENDING_ALREADY_VOIDED",
    ]
    assert [answer.booked_minor for answer in answers] == [100, 60, 20, 0, 40, 0, 0]
    accounts = await ledger.accounts.read(0, [ledger.account_id("A")])
    assert accounts[ledger.account_id("A")].available_minor == 80
    assert (await ledger.reading.check()).findings == ()


async def test_chains_are_booked_all_or_none(ledger: LedgerSide) -> None:
    await ledger.ledger.post([ledger.move(1, "R", "A", 100)])
    chain = [
        replace(ledger.move(2, "A", "B", 30), linked=True),
        ledger.move(3, "B", "A", 31),
        ledger.move(4, "A", "B", 1),
    ]
    assert reasons(await ledger.ledger.post(chain)) == [
        "LINKED_TRANSFER_FAILED",
        "INSUFFICIENT_FUNDS",
        "BOOKED",
    ]
    assert reasons(await ledger.ledger.post(chain)) == [
        "LINKED_TRANSFER_FAILED",
        "INSUFFICIENT_FUNDS",
        "BOOKED+",
    ]


async def test_holds_whose_time_is_over_are_listed_and_expired(ledger: LedgerSide) -> None:
    pending = ledger.move(2, "A", "B", 60, kind=TransferKind.PENDING, timeout_seconds=1)
    await ledger.ledger.post([ledger.move(1, "R", "A", 100), pending])
    async with asyncio.timeout(20):
        while not (due := await ledger.reading.list_due_holds(0, 10)):  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.02)
    assert [hold.id for hold in due] == [pending.id]
    assert await expire_holds(ledger.ledger, ledger.reading, 0) == 1
    assert await expire_holds(ledger.ledger, ledger.reading, 0) == 0


async def test_an_account_is_changed_only_from_the_version_that_was_seen(
    ledger: LedgerSide,
) -> None:
    request = ChangeRequest(ledger.account_id("A"), "change-1", 1, "court order", "OPERATOR:o")
    frozen = await set_account_status(
        ledger.pool, ledger.accounts, request, AccountStatus.DEBIT_FROZEN
    )
    again = await set_account_status(
        ledger.pool, ledger.accounts, request, AccountStatus.DEBIT_FROZEN
    )
    assert (frozen.version, frozen) == (2, again)
    with pytest.raises(PaymeshError, match="version"):
        await change_limits(
            ledger.pool,
            ledger.accounts,
            replace(request, request_id="change-2"),
            credit_limit_minor=5,
            court_frozen_minor=0,
        )
    with pytest.raises(PaymeshError):
        await set_account_status(ledger.pool, ledger.accounts, request, AccountStatus.NORMAL)
    await change_limits(
        ledger.pool,
        ledger.accounts,
        replace(request, request_id="change-3", expected_version=2),
        credit_limit_minor=5,
        court_frozen_minor=7,
    )
    changes = await ledger.accounts.list_changes(0, ledger.account_id("A"))
    assert [(one.version, one.verb, one.before, one.after) for one in changes] == [
        (2, "status", {"status": "NORMAL"}, {"status": "DEBIT_FROZEN"}),
        (
            3,
            "limits",
            {"credit_limit_minor": 0, "court_frozen_minor": 0},
            {"credit_limit_minor": 5, "court_frozen_minor": 7},
        ),
    ]


async def test_buffers_are_drained_in_the_order_of_appending(ledger: LedgerSide) -> None:
    for number in range(1, 6):
        await ledger.ledger.post([ledger.move(number, "R", "H", number)])
    account_id = ledger.account_id("H")
    before = (await ledger.accounts.read(0, [account_id]))[account_id]
    assert (before.buffered_minor, before.available_minor, before.version) == (15, 0, 1)
    assert await ledger.buffers.list_accounts(0, "", 10) == [account_id]
    assert await ledger.buffers.list_accounts(0, account_id, 10) == []
    sums = {one.kind: one for one in await ledger.reading.sum_accounts("default", "LIVE")}
    assert sums["merchant_settled"].credits_buffered_minor == 15
    assert (await ledger.reading.check()).findings == ()
    assert await ledger.buffers.drain(0, account_id) == 5
    assert await ledger.buffers.drain(0, account_id) == 0
    assert await ledger.buffers.list_accounts(0, "", 10) == []
    after = (await ledger.accounts.read(0, [account_id]))[account_id]
    assert (after.buffered_minor, after.available_minor, after.version) == (0, 15, 6)
    [listed] = await ledger.accounts.list_of_owner("owner-H", "default", "LIVE")
    assert listed == after
    assert (await ledger.reading.check()).findings == ()


async def test_an_account_stops_buffering_with_an_empty_buffer(ledger: LedgerSide) -> None:
    await ledger.ledger.post([ledger.move(1, "R", "H", 7)])
    request = ChangeRequest(ledger.account_id("H"), "change-1", 1, "quiet again", "OPERATOR:o")
    changed = await set_account_buffering(ledger.pool, ledger.accounts, request, is_buffered=False)
    assert (changed.is_buffered, changed.available_minor, changed.version) == (False, 7, 3)
    answers = await ledger.ledger.post([ledger.move(2, "R", "H", 7)])
    assert [answer.is_buffered for answer in answers] == [False]
    assert (await ledger.reading.check()).findings == ()


async def test_the_business_date_only_moves_forward(ledger: LedgerSide) -> None:
    later = FIRST_DAY + timedelta(days=1)
    for _ in range(2):
        await cut_book(ledger.pool, ledger.days, 0, later, "test")
    with pytest.raises(PaymeshError):
        await cut_book(ledger.pool, ledger.days, 0, FIRST_DAY, "test")
    assert await ledger.days.read(0) == later
    assert await ledger.days.read(1) is None
    answers = await ledger.ledger.post([ledger.move(1, "R", "A", 100)])
    assert answers[0].business_date == later


async def test_a_date_is_not_moved_when_telling_of_it_fails(ledger: LedgerSide) -> None:
    async def fail(*_: object) -> None:
        raise OSError("lost")

    with pytest.raises(OSError, match="lost"):
        await cut_book(ledger.pool, ledger.days, 0, FIRST_DAY + timedelta(days=1), "test", fail)
    assert await ledger.days.read(0) == FIRST_DAY


async def test_reading_the_books_is_ordered_and_paged(ledger: LedgerSide) -> None:
    await ledger.ledger.post([ledger.move(n, "R", "A", n) for n in range(1, 8)])
    account = ledger.account_id("A")
    async with StatementStore(ledger.pool).view() as view:
        first = await view.list_entries(account, after_version=0, last_version=1000, limit=3)
        rest = await view.list_entries(
            account, after_version=first[-1].version, last_version=1000, limit=100
        )
    assert [line.amount_minor for line in (*first, *rest)] == list(range(1, 8))
    assert {line.counter_account_id for line in rest} == {ledger.account_id("R")}
    assert rest[-1].credits_posted_minor == 28
    journal = await ledger.reading.list_transfers(0, limit=4)
    journal += await ledger.reading.list_transfers(0, after_id=journal[-1].transfer.id)
    assert [one.transfer.id for one in journal] == sorted(map(ledger.transfer_id, range(1, 8)))
    sums = await ledger.reading.sum_accounts("default", "LIVE")
    assert [(one.kind, one.accounts, one.debits_posted_minor) for one in sums] == [
        ("channel_receivable", 1, 28),
        ("credit", 1, 0),
        ("merchant_pending", 1, 0),
        ("merchant_settled", 1, 0),
        ("unclaimed", 1, 0),
        ("user_available", 1, 0),
    ]
    report = await ledger.reading.check()
    assert (report.accounts, report.entries, report.findings) == (6, 14, ())


NUMBERS = st.integers(0, 20)
PAIRS = st.one_of(
    st.just(["R", "A"]),
    st.permutations(sorted(ACCOUNTS)).map(lambda names: list(names[:2])),
)
TRANSFERS = st.one_of(
    st.tuples(
        NUMBERS, st.sampled_from(["SINGLE", "PENDING"]), PAIRS, st.integers(1, 100), st.booleans()
    ),
    st.tuples(
        NUMBERS, st.sampled_from(["POST", "VOID"]), NUMBERS, st.integers(0, 60), st.booleans()
    ),
)
CHAINS = st.lists(TRANSFERS, min_size=1, max_size=3)
# Each with whether what waits in the buffer is drained behind it.
BATCHES = st.lists(
    st.tuples(st.lists(CHAINS, min_size=1, max_size=5), st.booleans()), min_size=5, max_size=12
)
Batches = list[tuple[list[list[tuple[Any, ...]]], bool]]


def made(ledger: LedgerSide, one: tuple[Any, ...], *, linked: bool) -> Transfer:
    number, kind, target, amount, flag = one
    if isinstance(target, list):
        return ledger.move(
            number,
            target[0],
            target[1],
            amount,
            kind=TransferKind(kind),
            linked=linked,
            balancing_debit=flag,
        )
    is_post = kind == "POST"
    return Transfer(
        id=ledger.transfer_id(number),
        kind=TransferKind(kind),
        pending_id=ledger.transfer_id(target),
        amount_minor=amount if is_post else 0,
        keep_rest=flag and is_post,
        linked=linked,
        movement="case.end",
        reference_id=f"ref-{number}",
        biz_trace_id="biz_case",
    )


async def test_any_batches_leave_the_same_answers_and_rows(twins: Twins) -> None:
    """Each batch is a transaction on both sides: answers, and in the end all rows, are the same."""

    async def compare(batches: Batches) -> None:
        await twins.clear()
        ledgers = twin_sides(*twins.sides)
        for ledger in ledgers:
            await ledger.begin()
        for batch, drains in batches:
            answers = []
            drained = []
            for ledger in ledgers:
                transfers = [
                    made(ledger, one, linked=place < len(chain) - 1)
                    for chain in batch
                    for place, one in enumerate(chain)
                ]
                answers.append(without_clock(await ledger.ledger.post(transfers)))
                if drains:
                    drained.append(await drain_buffers(ledger.buffers, 0))
            assert answers[0] == answers[1]
            assert drained[:1] == drained[1:]
        for ledger in ledgers:
            assert (await ledger.reading.check()).findings == ()
            await ledger.close()
        await twins.compare_rows()

    await try_examples(BATCHES, compare)


async def test_writing_movements_one_by_one_leaves_the_rows_of_whole_batches(
    twins: Twins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A movement that is alone in its batch is written by a statement of its own."""

    async def compare(batches: Batches) -> None:
        ways = []
        parent = IDS.new("tst")
        for is_alone in (True, False):
            await twins.clear()
            ledger = LedgerSide(twins.real, parent)
            await ledger.begin()
            answers = []
            with monkeypatch.context() as patch:
                if not is_alone:
                    patch.setattr(lane, "movement_columns", lambda _: None)
                for batch, drains in batches:
                    for chain in batch:
                        transfers = [
                            made(ledger, one, linked=place < len(chain) - 1)
                            for place, one in enumerate(chain)
                        ]
                        answers += without_clock(await ledger.ledger.post(transfers))
                    if drains:
                        await drain_buffers(ledger.buffers, 0)
            await ledger.close()
            ways.append((answers, await twins.real.dump()))
        assert ways[0] == ways[1]

    await try_examples(BATCHES, compare)
