"""What a batch writes is what was decided, whatever the texts and however empty the columns."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import pytest

from common.clock import SystemClock
from common.ids import IdFactory
from services.account.domain.accounts import Account, AccountSpec
from services.account.domain.transfers import (
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
    first_difference,
)
from tests.integration.account.conftest import LedgerKit

IDS = IdFactory(SystemClock())
# What separates columns and elements, on our side and on the server's.
_ODD = (
    "",
    "\x1f",
    "\x1e",
    "\x1f\x1e",
    "\x1f\x1e\x1e",
    "a\x1f",
    "\x1ea",
    "\x1fb\x1f\x1e",
    "\x1d\x1c",
    "{}",
    "{1,2}",
    '"quoted"',
    "NULL",
    "null",
    "back\\slash",
    "comma, and ; and ' and $4",
    " ",
    "\n\t\r",
    "聚合支付",
    "\U0001f9fe",
    "\u2028",
    "\ufeff",
)


@pytest.fixture
async def parties(kit: LedgerKit) -> tuple[Account, Account]:
    """A receivable that may go below zero, and a user's account."""
    first, second = await kit.open(
        [
            AccountSpec(IDS.new("acc"), "bank", "channel_receivable", "USD"),
            AccountSpec(IDS.new("acc"), "user", "user_available", "USD"),
        ]
    )
    return first, second


def _order(debit: Account, credit: Account, amount: int = 5, **changes: object) -> Transfer:
    fields: dict[str, object] = {
        "id": IDS.new("tfr"),
        "debit_account_id": debit.id,
        "credit_account_id": credit.id,
        "currency_code": "USD",
        "amount_minor": amount,
        "movement": "test.move",
        "reference_id": "ref",
    }
    return Transfer(**(fields | changes))  # type: ignore[arg-type]


async def _assert_kept(
    kit: LedgerKit, orders: Sequence[Transfer], results: Sequence[TransferResult]
) -> None:
    kept = await kit.reading.read_transfers(0, [one.id for one in orders])
    for order, result in zip(orders, results, strict=True):
        stored = kept[order.id]
        assert first_difference(order, stored.transfer) is None
        assert (order.actor, order.biz_trace_id) == (
            stored.transfer.actor,
            stored.transfer.biz_trace_id,
        )
        assert stored.answer(replayed=False) == result
    await kit.assert_books_fit()


@pytest.mark.parametrize("size", [1, 2, len(_ODD)])
async def test_writing_odd_texts_keeps_each_as_it_came(
    kit: LedgerKit, parties: tuple[Account, Account], size: int
) -> None:
    for start in range(0, len(_ODD), size):
        texts = _ODD[start : start + size]
        orders = [
            _order(*parties, actor=text, biz_trace_id=text[::-1], merchant_id=texts[-place])
            for place, text in enumerate(texts)
        ]
        results = await kit.ledger.post(orders)
        assert {one.status for one in results} == {TransferStatus.BOOKED}
        await _assert_kept(kit, orders, results)


async def test_writing_refusals_alone_or_among_others_keeps_their_reasons(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    bank, user = parties
    lines = len(await kit.lines(bank.id))
    for size in (1, 3):
        orders = [_order(user, bank, 10**6, actor=_ODD[place]) for place in range(size)]
        results = await kit.ledger.post(orders)
        assert {one.reason for one in results} == {"INSUFFICIENT_FUNDS"}
        await _assert_kept(kit, orders, results)
    assert len(await kit.lines(bank.id)) == lines
    orders = [_order(bank, user), _order(user, bank, 10**6), _order(bank, user)]
    results = await kit.ledger.post(orders)
    assert [one.reason for one in results] == ["", "INSUFFICIENT_FUNDS", ""]
    await _assert_kept(kit, orders, results)


async def test_writing_columns_of_which_one_alone_has_a_value_keeps_it_in_its_place(
    kit: LedgerKit, parties: tuple[Account, Account]
) -> None:
    bank, user = parties
    hold = _order(bank, user, kind=TransferKind.PENDING, timeout_seconds=600)
    orders = [
        _order(bank, user),
        _order(bank, user, value_on=date(2026, 2, 28)),
        hold,
        _order(bank, user, linked=True),
        _order(bank, user, balancing_debit=True),
        _order(bank, user, forced=True, movement="correction.test"),
        _order(bank, user, merchant_id="mch_1"),
        _order(bank, user),
    ]
    results = await kit.ledger.post(orders, may_force=True)
    assert {one.status for one in results} == {TransferStatus.BOOKED}
    await _assert_kept(kit, orders, results)
    part = Transfer(
        IDS.new("tfr"),
        TransferKind.POST,
        pending_id=hold.id,
        amount_minor=2,
        keep_rest=True,
        movement="test.move",
        reference_id="ref",
    )
    orders = [_order(bank, user), part, _order(bank, user)]
    await _assert_kept(kit, orders, await kit.ledger.post(orders))
