"""Every operation on an account of every status, carried out as the table says."""

from __future__ import annotations

import itertools

import pytest

from common.clock import SystemClock
from common.ids import IdFactory, derive
from services.account.domain.accounts import AccountSpec, AccountStatus, platform_account_id
from services.account.domain.statuses import RULES, Operation, Taken
from services.account.domain.transfers import Transfer, TransferKind, TransferResult
from tests.scenarios.account.memory import MemoryBooks

_PARENT = IdFactory(SystemClock()).new("tst")
_IDS = {name: derive("acc", _PARENT, name) for name in ("R", "A", "M")}
_UNCLAIMED = platform_account_id("unclaimed", "USD", tenant_id="default", mode="LIVE")
_HELD = derive("tfr", _PARENT, "hold")

_FIRST = {
    # A is the account whose status is tried; it has 100 and R may go negative.
    Operation.DEBIT: ("A", "M", TransferKind.SINGLE, "test.move"),
    Operation.CREDIT: ("R", "A", TransferKind.SINGLE, "test.move"),
    Operation.REFUND_CREDIT: ("R", "A", TransferKind.SINGLE, "refund.pay"),
    Operation.PENDING_CREDIT: ("R", "A", TransferKind.PENDING, "test.move"),
}
_LATER = {
    Operation.POST_DEBIT: ("A", "M", TransferKind.POST),
    Operation.POST_CREDIT: ("R", "A", TransferKind.POST),
    Operation.RETURN: ("A", "M", TransferKind.VOID),
}


@pytest.mark.parametrize("has_unclaimed", [True, False])
@pytest.mark.parametrize("operation", list(Operation))
@pytest.mark.parametrize("status", list(AccountStatus))
async def test_carrying_out_an_operation_does_what_the_table_says(
    status: AccountStatus, operation: Operation, has_unclaimed: bool
) -> None:
    books = await _books(has_unclaimed=has_unclaimed)
    if operation in _LATER:
        debit, credit, kind = _LATER[operation]
        await _post(books, _move("hold", debit, credit, TransferKind.PENDING))
        await books.set_status(_IDS["A"], status)
        before = dict(books.accounts)
        step = Transfer(
            derive("tfr", _PARENT, "step"),
            kind,
            pending_id=_HELD,
            movement="test.move",
            reference_id="ref",
        )
        result = await _post(books, step)
    else:
        debit, credit, kind, movement = _FIRST[operation]
        await books.set_status(_IDS["A"], status)
        before = dict(books.accounts)
        result = await _post(books, _move("step", debit, credit, kind, movement))
    taken, reason = RULES[status, operation]
    if taken is Taken.YES:
        assert (result.reason, result.redirected_to) == ("", "")
    elif taken is Taken.UNCLAIMED and has_unclaimed:
        assert (result.reason, result.redirected_to) == ("", _UNCLAIMED)
        assert books.accounts[_UNCLAIMED].available_minor == 10
        assert books.accounts[_IDS["A"]].credits_posted_minor == 100
    else:
        assert result.reason == reason
        assert books.accounts == before


@pytest.mark.parametrize(
    ("status", "kind"), list(itertools.product(AccountStatus, ["CREDIT", "POST_CREDIT"]))
)
async def test_redirecting_never_pays_the_unclaimed_account_itself(
    status: AccountStatus, kind: str
) -> None:
    books = await _books(has_unclaimed=True)
    await _post(books, _to_unclaimed())
    move = Transfer(
        derive("tfr", _PARENT, "out"),
        TransferKind.SINGLE if kind == "CREDIT" else TransferKind.PENDING,
        _UNCLAIMED,
        _IDS["A"],
        "USD",
        10,
        movement="test.move",
        reference_id="ref",
    )
    if kind == "POST_CREDIT":
        await _post(books, move)
        move = Transfer(
            derive("tfr", _PARENT, "end"),
            TransferKind.POST,
            pending_id=move.id,
            movement="test.move",
            reference_id="ref",
        )
    await books.set_status(_IDS["A"], status)
    result = await _post(books, move)
    assert result.redirected_to == ""
    taken, reason = RULES[status, kind]
    assert result.reason == ("" if taken is Taken.YES else reason)


async def _books(*, has_unclaimed: bool) -> MemoryBooks:
    books = MemoryBooks(SystemClock().now())
    kinds = {"R": "channel_receivable", "A": "user_available", "M": "merchant_pending"}
    specs = [AccountSpec(_IDS[n], n, kind, "USD") for n, kind in kinds.items()]
    if has_unclaimed:
        specs.append(AccountSpec(_UNCLAIMED, "platform", "unclaimed", "USD"))
    await books.open(specs)
    await _post(books, _move("in", "R", "A", amount=100))
    return books


async def _post(books: MemoryBooks, transfer: Transfer) -> TransferResult:
    [result] = await books.post([transfer], may_force=False)
    return result


def _move(
    name: str,
    debit: str,
    credit: str,
    kind: TransferKind = TransferKind.SINGLE,
    movement: str = "test.move",
    amount: int = 10,
) -> Transfer:
    return Transfer(
        derive("tfr", _PARENT, name),
        kind,
        _IDS[debit],
        _IDS[credit],
        "USD",
        amount,
        movement=movement,
        reference_id="ref",
    )


def _to_unclaimed() -> Transfer:
    return Transfer(
        derive("tfr", _PARENT, "fund"),
        TransferKind.SINGLE,
        _IDS["R"],
        _UNCLAIMED,
        "USD",
        50,
        movement="test.move",
        reference_id="ref",
    )
