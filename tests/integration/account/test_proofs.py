"""The proof: it holds while everything moves, and names the first entry of broken books.

The books are broken by hand, as only somebody with a way into the database could.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from services.account.domain.accounts import AccountSpec
from services.account.domain.days import DayState
from services.account.domain.proofs import Occasion, Proof
from services.account.domain.transfers import TransferKind
from services.account.domain.vouchers import journal_voucher_id
from services.account.flows.drain_buffers import drain_buffers
from services.account.store.buffers import BufferStore
from services.account.store.proofs import Snapshot
from tests.integration.account.conftest import close_kit, open_kit
from tests.integration.account.inner_books import (
    FIRST_DAY,
    IDS,
    InnerBooks,
    open_inner_books,
)

NEXT_DAY = FIRST_DAY + timedelta(days=1)


@pytest.fixture
async def books(ledger_url: str) -> AsyncIterator[InnerBooks]:
    """Empty books; the first day is the 30th of January 1998."""
    async with open_inner_books(ledger_url) as opened:
        yield opened


async def _make_all(books: InnerBooks) -> None:
    """Make every voucher that is due."""
    horizon = await books.fetch("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    assert isinstance(horizon, int)
    assert await books.make_up_to(0, horizon - 1)


async def _two_days(books: InnerBooks) -> list[str]:
    """Book on a day that is closed and on one that is not; return the ids of the transfers."""
    ids = [
        (await books.pay("bank", "user", 100)).transfer_id,
        (await books.pay("user", "shop", 60)).transfer_id,
        (await books.pay("user", "other", 5)).transfer_id,
    ]
    await books.cut(NEXT_DAY)
    await books.close_all()
    ids.append((await books.pay("bank", "user", 40)).transfer_id)
    ids.append((await books.pay("user", "shop", 20)).transfer_id)
    return ids


async def test_lines_add_up_with_what_is_in_flight_and_buffered(books: InnerBooks) -> None:
    spec = AccountSpec(IDS.new("acc"), "till", "merchant_pending", "USD", is_buffered=True)
    [books.accounts["till"]] = await books.kit.open([spec])
    ids = await _two_days(books)
    ids.append((await books.pay("user", "till", 3)).transfer_id)
    proof = await books.prove()
    assert proof.holds, proof.findings
    assert (proof.in_flight_count, list(proof.in_flight_ids)) == (3, sorted(ids[3:]))
    lines = {line.key.subject_code: line for line in proof.lines}
    shop = lines["2202.01"]
    assert (shop.outer_minor, shop.buffered_minor) == (80, 3)
    assert (shop.inner_minor, shop.in_flight_minor, shop.difference_minor) == (60, 23, 0)
    bank = lines["1122.01"]
    assert (bank.outer_minor, bank.inner_minor, bank.in_flight_minor) == (140, 100, 40)
    await drain_buffers(BufferStore(books.pool), 0)
    await _make_all(books)
    proof = await books.prove()
    assert proof.holds
    assert proof.in_flight_count == 0
    assert {line.key.subject_code: line.inner_minor for line in proof.lines}["2202.01"] == 83


async def test_holds_are_memo_and_not_in_the_proof(books: InnerBooks) -> None:
    await books.pay("bank", "user", 100)
    hold = await books.pay("user", "shop", 30, kind=TransferKind.PENDING)
    assert (await books.prove()).holds
    await books.kit.ledger.post(
        [
            books.move(
                "user",
                "shop",
                10,
                kind=TransferKind.POST,
                pending_id=hold.transfer_id,
                debit_account_id="",
                credit_account_id="",
                currency_code="",
            )
        ]
    )
    await _make_all(books)
    proof = await books.prove()
    assert proof.holds, proof.findings
    assert {one.key.subject_code: one.inner_minor for one in proof.lines}["2202.01"] == 10


async def test_the_payer_now_and_the_payee_after_the_cut_are_both_proved(books: InnerBooks) -> None:
    """What is between them when the day ends stands on the account in transit, in both books."""
    await books.open(way="in_transit")
    await books.pay("bank", "user", 100)
    await books.pay("user", "way", 40)
    await books.cut(NEXT_DAY)
    await books.close_all()
    await books.pay("way", "shop", 40)
    await books.cut(NEXT_DAY + timedelta(days=1))
    await books.close_all()
    days = await books.proofs.read_of_days([FIRST_DAY, NEXT_DAY])
    stood = {}
    for day, proof in days.items():
        assert proof.holds, proof.findings
        assert (await books.day(day)).day.state == DayState.CLOSED
        stood[day] = {line.key.subject_code: line.inner_minor for line in proof.lines}
    assert (stood[FIRST_DAY]["3001.01"], stood[FIRST_DAY]["2202.01"]) == (40, 0)
    assert (stood[NEXT_DAY]["3001.01"], stood[NEXT_DAY]["2202.01"]) == (0, 40)


Break = Callable[[InnerBooks, list[str]], Any]


async def _change_account(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    user = books.accounts["user"].id
    await books.sql(
        "UPDATE accounts SET credits_posted_minor = credits_posted_minor + 7 WHERE id = $1", user
    )
    return (ids[4], user, "", "its entries add up to 85 and 140")


async def _delete_line(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql(
        "DELETE FROM voucher_lines WHERE subject_code = '2202.01' AND amount_minor = 60"
    )
    return (ids[1], books.accounts["shop"].id, journal_voucher_id(ids[1]), "tells 0")


async def _add_entry(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    ghost, user = IDS.new("tfr"), books.accounts["user"].id
    await books.sql(
        "INSERT INTO entries (book, is_debit, business_date, version, amount_minor,"
        " debits_posted_minor, credits_posted_minor, booked_at, account_id, transfer_id)"
        " VALUES (0, false, $1, 99, 7, 0, 7, now(), $2, $3)",
        FIRST_DAY,
        user,
        ghost,
    )
    return (ghost, user, "", "7 credit")


async def _move_inside_a_subject(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    """Money goes from one user to another, with entries and balances, and no transfer moved it."""
    ghost, taken = IDS.new("tfr"), ("debits", books.accounts["user"].id)
    for side, account_id in (taken, ("credits", books.accounts["other"].id)):
        await books.sql(
            f"UPDATE accounts SET {side}_posted_minor = {side}_posted_minor + 7,"  # noqa: S608
            " version = version + 1 WHERE id = $1",
            account_id,
        )
        await books.sql(
            "INSERT INTO entries (book, is_debit, business_date, version, amount_minor,"
            " debits_posted_minor, credits_posted_minor, booked_at, account_id, transfer_id)"
            " SELECT book, $1, $2, version, 7, debits_posted_minor, credits_posted_minor, now(),"
            " id, $4 FROM accounts WHERE id = $3",
            side == "debits",
            FIRST_DAY,
            account_id,
            ghost,
        )
    return (ghost, min(books.accounts[name].id for name in ("user", "other")), "", "is not booked")


async def _enter_on_another_account(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    """A transfer between two users has its credit on the account that it debits."""
    user, other = (books.accounts[name].id for name in ("user", "other"))
    await books.sql(
        "UPDATE entries SET account_id = $1 WHERE account_id = $2 AND transfer_id = $3",
        user,
        other,
        ids[2],
    )
    words = "moved 5 debit, its entries say 0" if user < other else "has no entry"
    return (ids[2], min(user, other), "", words)


async def _delete_entry(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql(
        "DELETE FROM entries WHERE transfer_id = $1 AND account_id = $2",
        ids[1],
        books.accounts["shop"].id,
    )
    return (ids[1], books.accounts["shop"].id, journal_voucher_id(ids[1]), "has no entry")


async def _delete_voucher(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    number = await books.fetch("SELECT number FROM vouchers WHERE source_id = $1", ids[1])
    for table in ("vouchers", "voucher_lines"):
        await books.sql(
            f"DELETE FROM {table} WHERE number = $1 AND business_date = $2",  # noqa: S608
            number,
            FIRST_DAY,
        )
    return (ids[1], books.accounts["shop"].id, "", "no voucher tells of it")


async def _change_line(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql(
        "UPDATE voucher_lines SET amount_minor = 61"
        " WHERE subject_code = '2202.01' AND amount_minor = 60"
    )
    return (ids[1], books.accounts["shop"].id, journal_voucher_id(ids[1]), "tells 61 credit")


async def _change_subject(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql(
        "UPDATE voucher_lines SET subject_code = '2202.02'"
        " WHERE subject_code = '2202.01' AND amount_minor = 60"
    )
    return (ids[1], books.accounts["shop"].id, journal_voucher_id(ids[1]), "tells 0")


async def _change_transfer(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql("UPDATE transfers SET booked_minor = 61 WHERE id = $1", ids[1])
    return (ids[1], books.accounts["shop"].id, journal_voucher_id(ids[1]), "moved 61 credit")


async def _change_sum(books: InnerBooks, ids: list[str]) -> tuple[str, ...]:
    await books.sql(
        "UPDATE subject_balances SET credits_minor = credits_minor + 1"
        " WHERE subject_code = '2202.01' AND business_date = $1",
        FIRST_DAY,
    )
    return ("", "", "", "sums keep 61 credit, its vouchers tell 60 credit")


BREAKS: dict[str, Break] = {
    break_.__name__.lstrip("_"): break_
    for break_ in (
        _change_account,
        _delete_line,
        _add_entry,
        _move_inside_a_subject,
        _enter_on_another_account,
        _delete_entry,
        _delete_voucher,
        _change_line,
        _change_subject,
        _change_transfer,
        _change_sum,
    )
}


async def test_a_cut_finds_an_entry_on_another_account_of_the_subject(books: InnerBooks) -> None:
    """The sums of the subject hold: each account's are compared with what was moved on it."""
    ids = [(await books.pay("bank", "user", 100)).transfer_id for _ in range(2)]
    ids.append((await books.pay("user", "other", 5)).transfer_id)
    await _enter_on_another_account(books, ids)
    await books.cut(NEXT_DAY)
    await books.close_all()
    proof = (await books.proofs.read_of_days([FIRST_DAY]))[FIRST_DAY]
    assert not proof.holds
    assert [(one.transfer_id, one.subject_code) for one in proof.unfit] == [(ids[2], "2203.01")]
    assert not any(line.difference_minor for line in proof.lines)


@pytest.mark.parametrize("name", sorted(BREAKS))
async def test_proving_broken_books_names_the_first_entry_that_does_not_fit(
    books: InnerBooks, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await _two_days(books)
    await _make_all(books)
    assert (await books.prove()).holds
    # Something later is broken as well: it is not what is to be named.
    await books.sql(
        "UPDATE voucher_lines SET amount_minor = 21"
        " WHERE subject_code = '2202.01' AND amount_minor = 20 AND business_date = $1",
        NEXT_DAY,
    )
    transfer_id, account_id, voucher_id, words = await BREAKS[name](books, ids)
    with caplog.at_level(logging.ERROR):
        proof = await books.prove()
    assert not proof.holds
    found = [one for one in proof.unfit if words in one.finding]
    assert found, proof.findings
    assert (found[0].transfer_id, found[0].account_id, found[0].voucher_id) == (
        transfer_id,
        account_id,
        voucher_id,
    )
    assert len({one.subject_code for one in proof.unfit}) == len(proof.unfit)
    assert found[0].finding in caplog.text
    assert await books.proofs.read_last() == proof


async def test_the_continuous_proof_finds_what_sums_show(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await _two_days(books)
    await _make_all(books)
    first = await books.prover.prove_if_moved()
    assert first is not None
    assert first.holds
    assert await books.prover.prove_if_moved() is None
    await books.pay("bank", "user", 1)
    second = await books.prover.prove_if_moved()
    assert second is not None
    assert second.occasion is Occasion.CONTINUOUS
    account_id = (await _change_account(books, ids))[1]
    await books.pay("bank", "shop", 1)
    third = await books.prover.prove_if_moved()
    assert third is not None
    [unfit] = third.unfit
    assert (unfit.account_id, unfit.subject_code) == (account_id, "2203.01")
    assert await books.fetch("SELECT count(*) FROM outbox WHERE type = 'account.proof.broken.v1'")
    # The same again is no news, and is not looked for in all that there is.
    monkeypatch.setattr(Snapshot, "compare_days", None)
    await books.pay("bank", "shop", 1)
    again = await books.prover.prove_if_moved()
    assert again is not None
    assert again.unfit == third.unfit
    told = "SELECT count(*) FROM outbox WHERE type = 'account.proof.broken.v1'"
    assert await books.fetch(told) == 1
    # Of continuous proofs the last one is kept, and those that did not hold.
    kept = "SELECT count(*) FROM proofs WHERE occasion = 'CONTINUOUS' AND holds"
    assert await books.fetch(kept) == 0


async def test_a_proof_of_another_process_is_not_repeated_at_once(books: InnerBooks) -> None:
    await books.pay("bank", "user", 1)
    await books.prove()
    assert await books.prover.prove_if_moved(timedelta(seconds=60)) is None
    assert await books.prover.prove_if_moved() is not None


async def test_what_is_in_flight_is_listed_from_the_view_that_is_proved(
    books: InnerBooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vouchers that are made while a proof is under way are not in it."""
    for amount in (1, 2, 3):
        await books.pay("bank", "user", amount)
    read = Snapshot.read_terms

    async def read_then_move(self: Snapshot) -> Any:
        terms = await read(self)
        await _make_all(books)
        await books.pay("bank", "user", 4)
        return terms

    monkeypatch.setattr(Snapshot, "read_terms", read_then_move)
    proof = await books.prove()
    assert proof.holds
    assert proof.in_flight_count == 3
    line = {one.key.subject_code: one for one in proof.lines}["2203.01"]
    assert line.in_flight_minor == 6


async def test_proving_while_everything_moves_holds_every_time(books: InnerBooks) -> None:
    """Writers, the maker, the drain and the cut at work; each view of the books adds up."""
    spec = AccountSpec(IDS.new("acc"), "till", "merchant_pending", "USD", is_buffered=True)
    [books.accounts["till"]] = await books.kit.open([spec])
    await books.pay("bank", "user", 1_000_000)
    other = await open_kit(books.kit.url)
    done = asyncio.Event()
    chance = random.Random(7)  # noqa: S311 - a test's plan

    async def write(ledger: Any) -> None:
        ways = (("user", "shop"), ("user", "till"), ("bank", "other"), ("shop", "fee"))
        while not done.is_set():
            moves = [books.move(*chance.choice(ways), chance.randint(1, 50)) for _ in range(8)]
            await ledger.post(moves)

    async def make() -> None:
        while not done.is_set():
            await _try_make(books)
            await drain_buffers(BufferStore(books.pool), 0)
            await asyncio.sleep(0.01)

    async def cut() -> None:
        day = FIRST_DAY
        while not done.is_set():
            day += timedelta(days=1)
            await books.cut(day)
            await books.closer.close_due()
            await asyncio.sleep(0.05)

    work = [
        asyncio.create_task(one)
        for one in (write(books.kit.ledger), write(other.ledger), make(), cut())
    ]
    proofs: list[Proof] = []
    try:
        proofs += [await books.prove() for _ in range(20)]
    finally:
        done.set()
        await asyncio.gather(*work)
        await close_kit(other)
    assert [one.findings for one in proofs if not one.holds] == []
    assert any(one.in_flight_count for one in proofs)
    await books.close_all()
    states = "SELECT count(*) FROM business_days WHERE state NOT IN ('CLOSED', 'OPEN')"
    assert await books.fetch(states) == 0


async def _try_make(books: InnerBooks) -> None:
    horizon = await books.fetch("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
    assert isinstance(horizon, int)
    await books.make_up_to(0, horizon - 1)
