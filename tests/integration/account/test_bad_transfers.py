"""Bad input through the RPCs: what is wrong is told item by item, what is right is booked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from ledger_rpc import LedgerRpc, serving_ledger
from paymesh.account.v1 import (
    TRANSFER_KIND_EXPIRE,
    TRANSFER_KIND_PENDING,
    TRANSFER_KIND_POST,
    TRANSFER_KIND_SINGLE,
    TRANSFER_KIND_UNSPECIFIED,
    TRANSFER_KIND_VOID,
    TRANSFER_STATUS_BOOKED,
    TRANSFER_STATUS_INVALID,
    TRANSFER_STATUS_REFUSED,
    AccountSpec,
    TransferKind,
    TransferResult,
    TransferSpec,
)

from common.errors import Outcome, RemoteError
from common.ids import IdFactory, derive


@pytest.fixture(scope="module")
async def served(database_url: str) -> AsyncIterator[LedgerRpc]:
    async with serving_ledger(database_url) as ledger:
        yield ledger


@pytest.fixture
async def ledger(served: LedgerRpc) -> LedgerRpc:
    """The ledger with a cast of its own, and 1,000 on A."""
    await served.open_cast()
    assert (await served.post(served.move("in", amount=1000)))[0].status == TRANSFER_STATUS_BOOKED
    return served


_LATER = {"kind": TRANSFER_KIND_POST, "debit": "", "credit": "", "currency_code": "", "amount": 0}
_HUGE = "x" * 100_000

# What is wrong, the reason, and the field that the metadata names.
_WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    ("id empty", {"id": ""}, "ID_MALFORMED", "id"),
    ("id short", {"id": "tfr_0123"}, "ID_MALFORMED", "id"),
    ("id of another kind", {"id": "pay_00000000000000000000000000"}, "ID_MALFORMED", "id"),
    ("id with a line end", {"id": "tfr_00000000000000000000000000\n"}, "ID_MALFORMED", "id"),
    ("id huge", {"id": _HUGE}, "ID_MALFORMED", "id"),
    ("id with NUL", {"id": "tfr_0000000000000000000000000\0"}, "ID_MALFORMED", "id"),
    ("id of 1970", {"id": "tfr_00000000000000000000000000"}, "ID_OUT_OF_WINDOW", ""),
    ("id of the year 37648", {"id": "tfr_zzzzzzzzzz0000000000000000"}, "ID_OUT_OF_WINDOW", ""),
    ("kind unspecified", {"kind": TRANSFER_KIND_UNSPECIFIED}, "FIELD_INVALID", "kind"),
    ("kind of the ledger", {"kind": TRANSFER_KIND_EXPIRE}, "FIELD_INVALID", "kind"),
    ("kind unheard of", {"kind": 99}, "FIELD_INVALID", "kind"),
    ("debit malformed", {"debit": "acc_x"}, "ID_MALFORMED", "debit_account_id"),
    ("debit huge", {"debit": _HUGE}, "ID_MALFORMED", "debit_account_id"),
    ("debit missing", {"debit": ""}, "FIELD_INVALID", "debit_account_id"),
    ("credit with NUL", {"credit": "acc_\0"}, "ID_MALFORMED", "credit_account_id"),
    ("credit missing", {"credit": ""}, "FIELD_INVALID", "credit_account_id"),
    ("credit of another book", {"credit": "B"}, "BOOK_MISMATCH", "credit_account_id"),
    ("accounts the same", {"debit": "A", "credit": "A"}, "ACCOUNTS_EQUAL", ""),
    ("account in euro", {"credit": "E"}, "CURRENCY_MISMATCH", ""),
    ("currency missing", {"currency_code": ""}, "FIELD_INVALID", "currency_code"),
    ("currency unknown", {"currency_code": "ABC"}, "CURRENCY_UNKNOWN", ""),
    ("currency small", {"currency_code": "usd"}, "CURRENCY_UNKNOWN", ""),
    ("currency huge", {"currency_code": _HUGE}, "CURRENCY_UNKNOWN", ""),
    ("currency with NUL", {"currency_code": "US\0"}, "CURRENCY_UNKNOWN", ""),
    ("amount zero", {"amount": 0}, "AMOUNT_OUT_OF_RANGE", "amount_minor"),
    ("amount below zero", {"amount": -5}, "AMOUNT_OUT_OF_RANGE", "amount_minor"),
    ("amount too large", {"amount": 10**15 + 1}, "AMOUNT_OUT_OF_RANGE", "amount_minor"),
    ("amount smallest", {"amount": -(2**63)}, "AMOUNT_OUT_OF_RANGE", "amount_minor"),
    ("amount largest", {"amount": 2**63 - 1}, "AMOUNT_OUT_OF_RANGE", "amount_minor"),
    ("pending of a single", {"pending_id": "in"}, "FIELD_INVALID", "pending_id"),
    ("rest of a single", {"keep_rest": True}, "FIELD_INVALID", "pending_id"),
    ("time of a single", {"timeout_seconds": 5}, "FIELD_INVALID", "timeout_seconds"),
    (
        "time too long",
        {"kind": TRANSFER_KIND_PENDING, "timeout_seconds": 31_622_401},
        "FIELD_INVALID",
        "timeout_seconds",
    ),
    (
        "time below zero",
        {"kind": TRANSFER_KIND_PENDING, "timeout_seconds": -(2**31)},
        "FIELD_INVALID",
        "timeout_seconds",
    ),
    (
        "time of an outflow",
        {"kind": TRANSFER_KIND_PENDING, "timeout_seconds": 5, "movement": "payout.hold"},
        "FIELD_INVALID",
        "timeout_seconds",
    ),
    ("movement missing", {"movement": ""}, "FIELD_INVALID", "movement"),
    ("movement in capitals", {"movement": "Test.Move"}, "FIELD_INVALID", "movement"),
    ("movement huge", {"movement": "a." + "b" * 100_000}, "FIELD_INVALID", "movement"),
    ("movement with NUL", {"movement": "test.move\0"}, "FIELD_INVALID", "movement"),
    ("movement with a line end", {"movement": "test.move\n"}, "FIELD_INVALID", "movement"),
    ("reference missing", {"reference_id": ""}, "FIELD_INVALID", "reference_id"),
    ("reference too long", {"reference_id": "r" * 65}, "FIELD_INVALID", "reference_id"),
    ("reference huge", {"reference_id": _HUGE}, "FIELD_INVALID", "reference_id"),
    ("reference with NUL", {"reference_id": "ref\0"}, "FIELD_INVALID", "reference_id"),
    ("reference with a line end", {"reference_id": "ref\n"}, "FIELD_INVALID", "reference_id"),
    ("value date not a date", {"value_on": "2026-02-30"}, "FIELD_INVALID", "value_on"),
    ("value date of another form", {"value_on": "20260203"}, "FIELD_INVALID", "value_on"),
    ("value date huge", {"value_on": _HUGE}, "FIELD_INVALID", "value_on"),
    ("value date of the year one", {"value_on": "0001-01-01"}, "FIELD_INVALID", "value_on"),
    ("force not granted", {"forced": True}, "FIELD_INVALID", "forced"),
    ("post of nothing", {**_LATER}, "FIELD_INVALID", "pending_id"),
    ("post of a crooked id", {**_LATER, "pending_id": "tfr_"}, "ID_MALFORMED", "pending_id"),
    (
        "post of the year 37648",
        {**_LATER, "pending_id": "tfr_zzzzzzzzzz00zzzzzzzzzzzzzz"},
        "ID_OUT_OF_WINDOW",
        "pending_id",
    ),
    (
        "post of too much",
        {**_LATER, "pending_id": "in", "amount": 10**15 + 1},
        "AMOUNT_OUT_OF_RANGE",
        "amount_minor",
    ),
    (
        "void of a far book",
        {**_LATER, "kind": TRANSFER_KIND_VOID, "pending_id": "far"},
        "BOOK_MISMATCH",
        "pending_id",
    ),
    (
        "void with an amount",
        {**_LATER, "kind": TRANSFER_KIND_VOID, "pending_id": "in", "amount": 5},
        "FIELD_INVALID",
        "amount_minor",
    ),
]


def _wrong_spec(ledger: LedgerRpc, name: str, changes: dict[str, Any]) -> TransferSpec:
    changes = dict(changes)
    named = {"in": ledger.transfer_id("in"), "far": derive("tfr", _in_book_one(ledger), "far")}
    if "pending_id" in changes:
        changes["pending_id"] = named.get(changes["pending_id"], changes["pending_id"])
    return ledger.move(name, **changes)


def _in_book_one(ledger: LedgerRpc) -> str:
    return IdFactory(ledger.kit.clock).new("tst", 1)


async def _open_foreign(ledger: LedgerRpc) -> None:
    """An account in euro, and one in another book."""
    ledger.ids["E"] = derive("acc", ledger.parent, "E")
    ledger.ids["B"] = derive("acc", _in_book_one(ledger), "B")
    await ledger.open(
        [
            AccountSpec(id=ledger.ids[n], owner_id=n, kind="user_available", currency_code=c)
            for n, c in (("E", "EUR"), ("B", "USD"))
        ]
    )


def _check_wrong(result: TransferResult, name: str, reason: str, field: str) -> None:
    assert (result.status, result.reason) == (TRANSFER_STATUS_INVALID, reason), name
    if field:
        assert result.reason_metadata["field"] == field, name
    # An answer never gives back more than it was given room for.
    assert all(len(text) <= 200 for text in result.reason_metadata.values()), name


async def test_booking_wrong_items_among_right_ones_books_the_right_ones(
    ledger: LedgerRpc,
) -> None:
    await _open_foreign(ledger)
    specs = []
    for name, changes, _, _ in _WRONG:
        specs += [_wrong_spec(ledger, name, changes), ledger.move(f"right beside {name}")]
    results = await ledger.post(*specs)
    assert [r.transfer_id for r in results] == [s.id for s in specs]
    for (name, _, reason, field), wrong, right in zip(
        _WRONG, results[::2], results[1::2], strict=True
    ):
        _check_wrong(wrong, name, reason, field)
        assert right.status == TRANSFER_STATUS_BOOKED, (name, right.reason)
    balance = (await ledger.accounts())["A"].balance
    assert balance.credits_posted_minor == 1000 + 5 * len(_WRONG)
    # Nothing is kept under the id of what was never valid.
    well_formed = [
        s.id for s, r in zip(specs[::2], results[::2], strict=True) if r.reason != "ID_MALFORMED"
    ]
    assert await ledger.kept(*well_formed) == {}


@pytest.mark.parametrize(("name", "changes", "reason", "field"), _WRONG, ids=[w[0] for w in _WRONG])
async def test_booking_one_wrong_transfer_alone_gives_the_same_reason(
    ledger: LedgerRpc, name: str, changes: dict[str, Any], reason: str, field: str
) -> None:
    await _open_foreign(ledger)
    _check_wrong(await ledger.post_one(_wrong_spec(ledger, name, changes)), name, reason, field)


async def test_booking_the_most_items_of_one_call_answers_each(ledger: LedgerRpc) -> None:
    wrong = dict.fromkeys(range(0, 8000, 1000), 0)
    specs = [ledger.move(number, amount=wrong.get(number, 1)) for number in range(8000)]
    results = await ledger.post(*specs)
    assert [r.transfer_id for r in results] == [s.id for s in specs]
    assert {n for n, r in enumerate(results) if r.reason} == set(wrong)
    assert {results[n].reason for n in wrong} == {"AMOUNT_OUT_OF_RANGE"}
    assert (await ledger.accounts())["A"].balance.credits_posted_minor == 1000 + 8000 - len(wrong)


@pytest.mark.parametrize("count", [0, 8001])
async def test_booking_no_item_or_too_many_fails_the_call_and_books_nothing(
    ledger: LedgerRpc, count: int
) -> None:
    with pytest.raises(RemoteError) as failed:
        await ledger.post(*[ledger.move(number) for number in range(count)])
    assert (failed.value.remote_reason, failed.value.outcome) == (
        "FIELD_INVALID",
        Outcome.NOT_EXECUTED,
    )
    assert (await ledger.accounts())["A"].version == 2


async def test_booking_one_id_twice_in_a_call_gives_the_second_the_first_ones_answer(
    ledger: LedgerRpc,
) -> None:
    booked, again, other, refused, refused_again, wrong, mended = await ledger.post(
        ledger.move("a"),
        ledger.move("a"),
        ledger.move("a", amount=6),
        ledger.move("b", "M", "A"),
        ledger.move("b", "M", "A"),
        ledger.move("c", amount=0),
        ledger.move("c"),
    )
    assert [r.replayed for r in (booked, again, refused, refused_again)] == [False, True] * 2
    assert booked.status == again.status == mended.status == TRANSFER_STATUS_BOOKED
    assert (other.status, other.reason) == (TRANSFER_STATUS_INVALID, "ID_CONFLICT")
    assert other.reason_metadata["field"] == "amount_minor"
    assert refused.status == refused_again.status == TRANSFER_STATUS_REFUSED
    assert refused.reason == refused_again.reason == "INSUFFICIENT_FUNDS"
    assert wrong.reason == "AMOUNT_OUT_OF_RANGE"
    assert (await ledger.accounts())["A"].balance.credits_posted_minor == 1000 + 5 + 5


async def test_booking_a_chain_over_the_limit_among_others_refuses_only_the_chain(
    ledger: LedgerRpc,
) -> None:
    longest = [ledger.move(f"l{n}", amount=1, linked=n < 127) for n in range(128)]
    too_long = [ledger.move(f"t{n}", amount=1, linked=n < 128) for n in range(129)]
    still_open = [ledger.move(f"o{n}", amount=1, linked=True) for n in range(3)]
    results = await ledger.post(*too_long, *longest, ledger.move("one"), *still_open)
    of_long, of_longest, of_one, of_open = (
        results[:129],
        results[129:257],
        results[257],
        results[258:],
    )
    assert {r.status for r in of_longest} == {of_one.status} == {TRANSFER_STATUS_BOOKED}
    assert [r.reason for r in of_long] == ["LINKED_TRANSFER_FAILED"] * 128 + ["FIELD_INVALID"]
    assert of_long[-1].reason_metadata["field"] == "linked"
    assert of_long[0].reason_metadata["culprit_id"] == too_long[-1].id
    assert [r.reason for r in of_open] == ["LINKED_TRANSFER_FAILED"] * 2 + ["CHAIN_OPEN"]
    assert await ledger.kept(*[s.id for s in (*too_long, *still_open)]) == {}
    assert (await ledger.accounts())["A"].balance.credits_posted_minor == 1000 + 128 + 5


async def test_booking_one_linked_transfer_alone_leaves_its_chain_open(ledger: LedgerRpc) -> None:
    result = await ledger.post_one(ledger.move("a", linked=True))
    assert (result.status, result.reason) == (TRANSFER_STATUS_INVALID, "CHAIN_OPEN")
    assert await ledger.kept(ledger.transfer_id("a")) == {}


@pytest.mark.parametrize("place", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount": 10**15}, "INSUFFICIENT_FUNDS"),
        ({"amount": 0}, "AMOUNT_OUT_OF_RANGE"),
        ({"id": "tfr_"}, "ID_MALFORMED"),
        ({"credit": "acc_00000000000000000000000000"}, "ACCOUNT_NOT_FOUND"),
    ],
)
async def test_booking_a_chain_with_one_wrong_item_books_none_and_names_it(
    ledger: LedgerRpc, place: int, changes: dict[str, Any], reason: str
) -> None:
    made: list[dict[str, Any]] = [{"debit": "A", "credit": "M", "linked": n < 3} for n in range(4)]
    made[place] |= changes
    specs = [ledger.move(n, **fields) for n, fields in enumerate(made)]
    results = await ledger.post(*specs, ledger.move("beside"))
    assert results[-1].status == TRANSFER_STATUS_BOOKED
    assert results[place].reason == reason
    for n in {0, 1, 2, 3} - {place}:
        assert results[n].reason == "LINKED_TRANSFER_FAILED"
        assert results[n].reason_metadata["culprit_id"] == specs[place].id
        assert results[n].reason_metadata["culprit_reason"] == reason
    assert (await ledger.accounts())["A"].balance.available_minor == 1000 + 5


@pytest.mark.parametrize("kind", [TRANSFER_KIND_SINGLE, TRANSFER_KIND_VOID])
async def test_booking_in_books_that_are_not_open_refuses_only_what_is_in_them(
    ledger: LedgerRpc, kind: TransferKind.ValueType
) -> None:
    """Each book has a session of its own: a thousand wrong ids must not leave one each."""
    wrong = []
    for book in range(1, 1000, 37):
        ids = {name: ledger.kit.ids.new("acc", book=book) for name in ("debit", "credit")}
        if kind == TRANSFER_KIND_VOID:
            ids = {"debit": "", "credit": "", "pending_id": ledger.kit.ids.new("tfr", book=book)}
            ids["currency_code"] = ""
        amount = 0 if kind == TRANSFER_KIND_VOID else 5
        own = ledger.kit.ids.new("tfr", book=book)
        wrong.append(ledger.move("x", amount=amount, kind=kind, id=own, **ids))
    right = ledger.move(f"right {kind}")
    results = await ledger.post(wrong[0], right, *wrong[1:])
    assert results.pop(1).status == TRANSFER_STATUS_BOOKED
    results.append(await ledger.post_one(wrong[0]))
    for result in results:
        assert (result.status, result.reason) == (TRANSFER_STATUS_INVALID, "FIELD_INVALID")
        assert result.reason_metadata["rule"] == "is in a book that is not open"
    async with ledger.kit.pools["account"].acquire() as connection:
        sessions = await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND backend_type = 'client backend'"
        )
    assert sessions < len(wrong)
