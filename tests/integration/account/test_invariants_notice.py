"""The invariants that other tests rely on notice each kind of damage."""

from __future__ import annotations

import pytest

from common.clock import SystemClock
from common.ids import IdFactory, derive
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind
from tests.integration.account.conftest import LedgerKit
from tests.integration.account.invariants import find_broken

_DAMAGE = [
    (
        "UPDATE accounts SET debits_posted_minor = debits_posted_minor + 1 WHERE id = $1",
        "debits and credits differ",
    ),
    (
        "UPDATE accounts SET credits_posted_minor = credits_posted_minor + 1 WHERE id = $1",
        "an account is not the sum of its lines",
    ),
    (
        "UPDATE entries SET credits_posted_minor = credits_posted_minor + 1 WHERE account_id = $1",
        "a line does not follow from the one before",
    ),
    ("UPDATE accounts SET version = 1 WHERE id = $1", "a line is newer than its account"),
    (
        "UPDATE accounts SET debits_pending_minor = 99 WHERE id = $1",
        "what is frozen is not what open holds keep",
    ),
    (
        "UPDATE holds SET held_minor = held_minor + 1 WHERE debit_account_id = $1",
        "a hold's parts are not what was held",
    ),
    (
        "DELETE FROM entries WHERE account_id = $1 AND is_debit",
        "a movement has not its two lines",
    ),
    ("DELETE FROM holds WHERE debit_account_id = $1", "a hold is neither open nor ended"),
    (
        (
            "UPDATE entries SET business_date = business_date - 1 WHERE account_id = $1"
            " AND version = (SELECT max(version) FROM entries WHERE account_id = $1)"
        ),
        "a line's day is before the one before",
    ),
    (
        (
            "UPDATE accounts SET debits_pending_minor = debits_pending_minor + 10^12::bigint"
            " WHERE id = $1"
        ),
        "an account is below its limit",
    ),
    (
        (
            "UPDATE transfers SET status = 'REFUSED', reason = 'X', reason_metadata = '{}'"
            " WHERE reference_id LIKE 'chain-%' AND linked AND debit_account_id = $1"
        ),
        "a chain is there in part",
    ),
    (
        (
            "UPDATE transfers SET written_in = '9999999'::xid8, business_date = business_date - 1"
            " WHERE debit_account_id = $1 AND linked"
        ),
        "days overlap",
    ),
]


@pytest.mark.parametrize(("damage", "word"), _DAMAGE, ids=[word for _, word in _DAMAGE])
async def test_damaging_a_row_is_noticed(kit: LedgerKit, damage: str, word: str) -> None:
    parent = IdFactory(SystemClock()).new("tst")
    receivable, user, shop = await kit.open(
        [
            AccountSpec(derive("acc", parent, kind), kind, kind, "USD")
            for kind in ("channel_receivable", "user_available", "merchant_pending")
        ]
    )

    def move(name: str, debit: str, credit: str, **changes: object) -> Transfer:
        fields: dict[str, object] = {
            "id": derive("tfr", parent, name),
            "debit_account_id": debit,
            "credit_account_id": credit,
            "currency_code": "USD",
            "amount_minor": 10,
            "movement": "test.move",
            "reference_id": "ref",
        }
        return Transfer(**(fields | changes))  # type: ignore[arg-type]

    chain = {"reference_id": f"chain-2-{parent}"}
    results = await kit.ledger.post(
        [
            move("in", receivable.id, user.id, amount_minor=100),
            move("hold", user.id, shop.id, kind=TransferKind.PENDING),
            move("one", user.id, shop.id, linked=True, **chain),
            move("two", shop.id, receivable.id, **chain),
        ]
    )
    assert [result.reason for result in results] == [""] * 4
    assert await find_broken(kit.pool) == []
    async with kit.pool.acquire() as connection:
        await connection.execute("BEGIN")
        await connection.execute(damage, user.id)
        await connection.execute("COMMIT")
    found = await find_broken(kit.pool)
    await _forget(kit)
    assert any(one.startswith(word) for one in found), found


async def _forget(kit: LedgerKit) -> None:
    """Take everything away, for the next damage."""
    tables = "transfers, entries, resolutions, holds, buffered_credits, accounts"
    async with kit.pool.acquire() as connection:
        await connection.execute(f"TRUNCATE {tables}")
