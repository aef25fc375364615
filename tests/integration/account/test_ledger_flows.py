"""Opening, freezing, closing, days, statements, and what several writers must not do to another."""

from __future__ import annotations

import asyncio
from datetime import date, timedelta

import pytest
from paymesh.account.v1 import ListStoryRequest

from common.clock import SystemClock
from common.context import ActorType, CallContext, Principal, bound
from common.errors import (
    AmountOutOfRangeError,
    CurrencyUnknownError,
    FieldInvalidError,
    IdConflictError,
    IdMalformedError,
    InternalError,
    StateConflictError,
    VersionConflictError,
)
from common.ids import IdFactory, derive
from common.paging import PageTokens
from services.account.config import AccountSettings
from services.account.domain.accounts import Account, AccountSpec, AccountStatus
from services.account.domain.bookings import expiry_of
from services.account.domain.transfers import (
    Hold,
    Refusal,
    Transfer,
    TransferKind,
    TransferStatus,
)
from services.account.errors import (
    AccountDiffersError,
    AccountNotFoundError,
    BusinessDateNotLaterError,
)
from services.account.flows.change_account import (
    ANY_VERSION,
    ChangeRequest,
    change_limits,
    set_account_status,
)
from services.account.flows.cut_day import cut_book, open_book
from services.account.flows.expire_holds import expire_holds
from services.account.store.partitions import bounds_of, month_after, month_of
from services.account.story import list_story
from tests.integration.account.conftest import LedgerKit, NewKit

IDS = IdFactory(SystemClock())


def _spec(kind: str = "user_available", **changes: str) -> AccountSpec:
    values = {"id": IDS.new("acc"), "owner_id": "owner", "kind": kind, "currency_code": "USD"}
    return AccountSpec(**(values | changes))


def _move(debit: Account, credit: Account, amount: int = 10, **more: object) -> Transfer:
    order = Transfer(
        IDS.new("tfr"),
        TransferKind.SINGLE,
        debit.id,
        credit.id,
        debit.currency_code,
        amount,
        movement="test.move",
        reference_id="ref",
        biz_trace_id="story",
    )
    return Transfer(**({name: getattr(order, name) for name in order.__slots__} | more))  # type: ignore[arg-type]


@pytest.fixture
async def parties(kit: LedgerKit) -> tuple[Account, Account]:
    """A receivable that may go below zero, and a user's account."""
    first, second = await kit.open([_spec("channel_receivable"), _spec()])
    return first, second


def _change(account: Account, request_id: str, **more: object) -> ChangeRequest:
    values: dict[str, object] = {
        "account_id": account.id,
        "request_id": request_id,
        "expected_version": account.version,
        "reason": "asked for",
        "actor": "OPERATOR:jane",
    }
    return ChangeRequest(**(values | more))  # type: ignore[arg-type]


async def test_opening_twice_answers_as_the_first_time(kit: LedgerKit) -> None:
    spec = _spec()
    first = await kit.open([spec])
    again = await kit.open([spec, spec])
    assert again == first * 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("kind", "suspense"), ("currency_code", "EUR"), ("owner_id", "x"), ("merchant_id", "mer")],
)
async def test_opening_with_another_property_names_it_and_opens_nothing(
    kit: LedgerKit, field: str, value: str
) -> None:
    spec, other = _spec(), _spec()
    await kit.open([spec])
    changed = _spec(**({"id": spec.id, field: value}))
    with pytest.raises(AccountDiffersError) as refused:
        await kit.open([other, changed])
    assert refused.value.metadata == {"account_id": spec.id, "field": field}
    assert await kit.accounts.read(0, [other.id]) == {}


async def test_opening_from_many_sides_at_once_opens_each_once(new_kit: NewKit) -> None:
    kits = [await new_kit() for _ in range(3)]
    specs = [_spec() for _ in range(20)]
    opened = await asyncio.gather(
        kits[0].open(specs), kits[1].open(specs[::-1]), kits[2].open(specs[5:] + specs[:5])
    )
    assert {a.id for a in opened[0]} == {a.id for a in opened[1]} == {a.id for a in opened[2]}


async def test_opening_what_is_never_valid_is_refused(kit: LedgerKit) -> None:
    with pytest.raises(FieldInvalidError):
        await kit.open([_spec("piggy_bank")])
    with pytest.raises(CurrencyUnknownError):
        await kit.open([_spec(currency_code="ABC")])
    with pytest.raises(IdMalformedError):
        await kit.open([_spec(id="acc_1")])
    with pytest.raises(FieldInvalidError):
        await kit.open([_spec(owner_id="")])
    with pytest.raises(AmountOutOfRangeError):
        await kit.open([AccountSpec(IDS.new("acc"), "o", "credit", "USD", -1)])


async def test_changing_status_without_a_version_takes_the_account_as_it_is(
    kit: LedgerKit,
) -> None:
    """Whoever freezes an account that moves all the time cannot name its version."""
    [account] = await kit.open([_spec()])
    stale = _change(account, "freeze-1")
    await set_account_status(kit.pool, kit.accounts, stale, AccountStatus.DEBIT_FROZEN)
    request = _change(account, "thaw-1", expected_version=ANY_VERSION)
    thawed = await set_account_status(kit.pool, kit.accounts, request, AccountStatus.NORMAL)
    assert (thawed.status, thawed.version) == ("NORMAL", account.version + 2)


async def test_changing_status_keeps_history_and_answers_repeats(kit: LedgerKit) -> None:
    [account] = await kit.open([_spec()])
    request = _change(account, "freeze-1")
    frozen = await set_account_status(kit.pool, kit.accounts, request, AccountStatus.DEBIT_FROZEN)
    assert (frozen.status, frozen.version) == ("DEBIT_FROZEN", account.version + 1)
    again = await set_account_status(kit.pool, kit.accounts, request, AccountStatus.DEBIT_FROZEN)
    assert again == frozen
    with pytest.raises(IdConflictError):
        await set_account_status(kit.pool, kit.accounts, request, AccountStatus.NORMAL)
    with pytest.raises(VersionConflictError):
        await set_account_status(
            kit.pool, kit.accounts, _change(account, "freeze-2"), AccountStatus.NORMAL
        )
    limited = await change_limits(
        kit.pool,
        kit.accounts,
        _change(frozen, "limits-1"),
        credit_limit_minor=5,
        court_frozen_minor=0,
    )
    assert limited.credit_limit_minor == 5
    history = await kit.accounts.list_changes(0, account.id)
    assert [(h.verb, h.before, h.after, h.actor, h.reason) for h in history] == [
        (
            "status",
            {"status": "NORMAL"},
            {"status": "DEBIT_FROZEN"},
            "OPERATOR:jane",
            "asked for",
        ),
        (
            "limits",
            {"credit_limit_minor": 0, "court_frozen_minor": 0},
            {"credit_limit_minor": 5, "court_frozen_minor": 0},
            "OPERATOR:jane",
            "asked for",
        ),
    ]


async def test_changing_an_account_of_nobody_or_of_another_world_is_refused(
    kit: LedgerKit,
) -> None:
    [account] = await kit.open([_spec()])
    for request in (
        _change(account, "x", account_id=IDS.new("acc")),
        _change(account, "x", tenant_id="other"),
        _change(account, "x", mode="TEST"),
    ):
        with pytest.raises(AccountNotFoundError):
            await set_account_status(kit.pool, kit.accounts, request, AccountStatus.CLOSED)
    with pytest.raises(AmountOutOfRangeError):
        await change_limits(
            kit.pool,
            kit.accounts,
            _change(account, "x"),
            credit_limit_minor=-1,
            court_frozen_minor=0,
        )


async def test_closing_needs_an_empty_account_and_is_for_ever(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    receivable, user = parties
    await kit.ledger.post([_move(receivable, user)])
    user = (await kit.accounts.read(0, [user.id]))[user.id]
    with pytest.raises(StateConflictError):
        await set_account_status(
            kit.pool, kit.accounts, _change(user, "close"), AccountStatus.CLOSED
        )
    await kit.ledger.post([_move(user, receivable)])
    user = (await kit.accounts.read(0, [user.id]))[user.id]
    closed = await set_account_status(
        kit.pool, kit.accounts, _change(user, "close"), AccountStatus.CLOSED
    )
    with pytest.raises(StateConflictError):
        await set_account_status(
            kit.pool, kit.accounts, _change(closed, "open"), AccountStatus.NORMAL
        )


async def test_advancing_the_date_only_moves_forward_and_repeats_safely(kit: LedgerKit) -> None:
    today = await kit.days.read(0)
    assert today is not None
    tomorrow = today + timedelta(days=1)
    assert await cut_book(kit.pool, kit.days, 0, tomorrow, "op") == (today, tomorrow)
    assert await cut_book(kit.pool, kit.days, 0, tomorrow, "op") == (
        tomorrow,
        tomorrow,
    )
    with pytest.raises(BusinessDateNotLaterError) as refused:
        await cut_book(kit.pool, kit.days, 0, today, "op")
    assert refused.value.metadata == {"business_date": tomorrow.isoformat()}
    assert await open_book(kit.pool, kit.days, 0, date(1997, 1, 1), "op") == tomorrow


async def test_advancing_the_date_while_posting_cuts_cleanly(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """What was committed before the cut has the old date, what comes after has the new one."""
    first, second = await new_kit(), await new_kit()
    receivable, user = parties
    dates: list[tuple[date, date]] = []
    done = asyncio.Event()

    async def post() -> None:
        while not done.is_set():
            before = await first.days.read(0)
            [result] = await first.ledger.post([_move(receivable, user)])
            assert before is not None
            assert result.business_date is not None
            dates.append((before, result.business_date))

    posting = [asyncio.create_task(post()) for _ in range(4)]
    for _ in range(20):
        today = await second.days.read(0)
        assert today is not None
        await cut_book(second.pool, second.days, 0, today + timedelta(days=1), "op")
    done.set()
    await asyncio.gather(*posting)
    assert all(booked >= read for read, booked in dates)
    lines = await first.lines(user.id)
    on = [line.business_date for line in lines]
    assert on == sorted(on), "an entry behind a newer date has an older one"
    assert [line.version for line in lines] == sorted({line.version for line in lines})


async def test_posting_to_a_book_without_a_date_is_refused_and_books_nothing(
    kit: LedgerKit,
) -> None:
    accounts = await kit.open(
        [
            _spec("channel_receivable", id=IDS.new("acc", 7)),
            _spec(id=IDS.new("acc", 7)),
        ]
    )
    order = _move(*accounts, id=IDS.new("tfr", 7))
    [result] = await kit.ledger.post([order])
    assert (result.status, result.refusal) == (
        TransferStatus.INVALID,
        Refusal("FIELD_INVALID", {"field": "id", "rule": "is in a book that is not open"}),
    )
    assert not await kit.reading.read_transfers(7, [order.id])


async def test_posting_to_several_books_in_one_call_books_in_each(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    await open_book(kit.pool, kit.days, 3, date(2026, 1, 1), "op")
    others = await kit.open(
        [_spec("channel_receivable", id=IDS.new("acc", 3)), _spec(id=IDS.new("acc", 3))]
    )
    results = await kit.ledger.post(
        [_move(*parties), _move(*others, id=IDS.new("tfr", 3)), _move(*parties)]
    )
    assert [r.status for r in results] == [TransferStatus.BOOKED] * 3


async def test_posting_what_the_database_refuses_sets_only_that_aside(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    """A text that PostgreSQL cannot keep passes our checks; its neighbours are booked."""
    poisoned = _move(*parties, actor="\x00")
    results = await kit.ledger.post([_move(*parties), poisoned, _move(*parties)])
    assert [r.status for r in results] == [
        TransferStatus.BOOKED,
        TransferStatus.INVALID,
        TransferStatus.BOOKED,
    ]
    assert results[1].reason == "INTERNAL"
    with pytest.raises(InternalError):
        await kit.ledger.post([poisoned])


async def test_posting_a_chain_longer_than_allowed_is_refused(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    kit = await new_kit(AccountSettings(chain_transfers_max=2))  # type: ignore[call-arg]
    chain = [_move(*parties, linked=place < 2) for place in range(3)]
    results = await kit.ledger.post(chain)
    assert [r.reason for r in results] == [
        "LINKED_TRANSFER_FAILED",
        "LINKED_TRANSFER_FAILED",
        "FIELD_INVALID",
    ]


async def test_posting_nothing_answers_nothing(kit: LedgerKit) -> None:
    assert await kit.ledger.post([]) == []


async def test_posting_the_same_from_many_writers_books_it_once(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    kits = [await new_kit() for _ in range(4)]
    orders = [_move(*parties, 1) for _ in range(50)]
    answers = await asyncio.gather(*(kit.ledger.post(orders) for kit in kits for _ in range(2)))
    for place, order in enumerate(orders):
        told = [answer[place] for answer in answers]
        assert {(r.transfer_id, r.status, r.booked_at) for r in told} == {
            (order.id, TransferStatus.BOOKED, told[0].booked_at)
        }
        assert sum(not r.replayed for r in told) == 1
    user = (await kits[0].accounts.read(0, [parties[1].id]))[parties[1].id]
    assert user.available_minor == 50


async def test_posting_crosswise_from_many_writers_ends_in_no_deadlock(new_kit: NewKit) -> None:
    kits = [await new_kit() for _ in range(3)]
    accounts = await kits[0].open([_spec("channel_receivable") for _ in range(6)])

    async def cross(kit: LedgerKit, shift: int) -> None:
        for turn in range(15):
            orders = [
                _move(accounts[(i + shift + turn) % 6], accounts[(i + 2 * shift + turn + 1) % 6])
                for i in range(6)
                if (i + shift + turn) % 6 != (i + 2 * shift + turn + 1) % 6
            ]
            results = await kit.ledger.post(orders)
            assert all(r.status == TransferStatus.BOOKED for r in results)

    await asyncio.gather(*(cross(kit, shift) for shift, kit in enumerate(kits)))
    await kits[0].assert_books_fit()


async def test_expiring_from_two_sides_gives_back_once(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    kits = [await new_kit() for _ in range(2)]
    holds = [_move(*parties, kind=TransferKind.PENDING, timeout_seconds=1000) for _ in range(10)]
    await kits[0].ledger.post(holds)
    async with kits[0].pool.acquire() as connection:
        await connection.execute("UPDATE holds SET expires_at = now() WHERE expires_at > now()")
    counts = await asyncio.gather(
        *(expire_holds(kit.ledger, kit.reading, 0, batch_max=100) for kit in kits)
    )
    assert sum(counts) == 10
    user = (await kits[0].accounts.read(0, [parties[1].id]))[parties[1].id]
    assert user.credits_pending_minor == 0


async def test_posting_parts_of_one_hold_from_many_writers_takes_each_part(
    new_kit: NewKit, parties: tuple[Account, Account]
) -> None:
    """Each sees what the others have left of the hold: no part is lost, and none is too much."""
    kits = [await new_kit() for _ in range(4)]
    hold = _move(*parties, 20, kind=TransferKind.PENDING)
    await kits[0].ledger.post([hold])

    async def take(kit: LedgerKit) -> int:
        taken = 0
        for _ in range(10):
            part = Transfer(
                IDS.new("tfr"),
                TransferKind.POST,
                amount_minor=1,
                pending_id=hold.id,
                keep_rest=True,
                movement="test.part",
                reference_id="ref",
            )
            (result,) = await kit.ledger.post([part])
            taken += result.status == TransferStatus.BOOKED
        return taken

    assert sum(await asyncio.gather(*map(take, kits))) == 20
    user = (await kits[0].accounts.read(0, [parties[1].id]))[parties[1].id]
    assert (user.available_minor, user.credits_pending_minor) == (20, 0)
    await kits[0].assert_books_fit()


async def test_expiring_what_is_not_over_gives_back_nothing(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    hold = _move(*parties, kind=TransferKind.PENDING, timeout_seconds=1000)
    await kit.ledger.post([hold])
    early = expiry_of(Hold(hold.id, "default", "LIVE", "", "", "USD", 10, 0, SystemClock().now()))
    [result] = await kit.ledger.expire([early])
    assert (result.status, result.reason) == (TransferStatus.INVALID, "FIELD_INVALID")


async def test_reading_a_story_and_the_trial_balance_finds_what_was_booked(kit: LedgerKit) -> None:
    parties = await kit.open(
        [
            _spec("channel_receivable", tenant_id="story-tenant"),
            _spec(tenant_id="story-tenant"),
        ]
    )
    orders = [
        _move(*parties, 5, tenant_id="story-tenant", biz_trace_id="one-story", reference_id="pay_x")
        for _ in range(3)
    ]
    await kit.ledger.post(orders)
    for request in (
        ListStoryRequest(biz_trace_id="one-story"),
        ListStoryRequest(subject_id="pay_x"),
        ListStoryRequest(subject_id=orders[0].id),
    ):
        with bound(CallContext(principal=Principal("story-tenant", actor_type=ActorType.OPERATOR))):
            story = await list_story(kit.reading, PageTokens("secret"), request)
        postings = [item for item in story.items if item.kind == "posting"]
        assert {item.subject for item in postings} == {f"transfer {one.id}" for one in orders}
        assert story.biz_trace_id == "one-story"
    lines = await kit.reading.sum_accounts("story-tenant", "LIVE")
    assert [(x.kind, x.debits_posted_minor, x.credits_posted_minor) for x in lines] == [
        ("channel_receivable", 15, 0),
        ("user_available", 0, 15),
    ]
    assert [a.kind for a in await kit.accounts.list_of_owner("owner", "story-tenant", "LIVE")] == [
        "channel_receivable",
        "user_available",
    ]


async def test_checking_books_that_were_tampered_with_names_the_account(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    await kit.ledger.post([_move(*parties)])
    tampered = "UPDATE accounts SET credits_posted_minor = credits_posted_minor + $2 WHERE id = $1"
    async with kit.pool.acquire() as connection:
        await connection.execute(tampered, parties[1].id, 1)
    report = await kit.reading.check()
    assert any(parties[1].id in finding for finding in report.findings)
    assert any("debits and credits differ" in finding for finding in report.findings)
    async with kit.pool.acquire() as connection:
        await connection.execute(tampered, parties[1].id, -1)
    await kit.assert_books_fit()


def test_cutting_time_into_months_leaves_no_gap() -> None:
    month = (2025, 11)
    for _ in range(4):
        following = month_after(month)
        assert bounds_of(month)[1] == bounds_of(following)[0]
        month = following
    first, after = bounds_of((2026, 1))
    assert month_of(first.ljust(30, "0")) == (2026, 1)
    assert month_of(after.ljust(30, "0")) == (2026, 2)
    assert month_of(derive("tfr", first.ljust(30, "0"), "x")) == (2026, 1)
