"""A book that is new: plans that were made while its tables were empty must hold when they are not.

The lane plans each statement once, and the server knows nothing of a table until it was analysed.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from common.clock import SystemClock
from common.db.types import Connection
from common.ids import IdFactory
from services.account.domain.accounts import AccountSpec
from services.account.domain.transfers import Transfer, TransferKind
from tests.integration.account.conftest import LedgerKit, NewKit

IDS = IdFactory(SystemClock())
_LOOKED_AT = """
SELECT relname, coalesce(sum(seq_tup_read), 0) + coalesce(sum(idx_tup_fetch), 0) AS rows
FROM pg_stat_xact_user_tables WHERE relname IN ('accounts', 'holds') GROUP BY relname
"""


async def _rows_of_a_flush(
    kit: LedgerKit, orders: list[Transfer], monkeypatch: pytest.MonkeyPatch
) -> dict[str, int]:
    """How many rows of accounts and holds the server looked at to book a batch."""
    lane = kit.ledger._book(0)._lane
    seen: dict[str, int] = {}
    commit = lane.commit

    async def count_and_commit() -> None:
        connection: Connection = lane._session
        for row in await connection.fetch(_LOOKED_AT):
            seen[row["relname"]] = int(row["rows"])
        await commit()

    with monkeypatch.context() as patch:
        patch.setattr(lane, "commit", count_and_commit)
        results = await kit.ledger.post(orders)
    assert all(result.reason == "" for result in results)
    return seen


async def test_booking_in_a_new_book_looks_at_the_accounts_of_the_batch_only(
    new_kit: NewKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = await new_kit()
    async with kit.pool.acquire() as connection:
        await connection.execute("ALTER TABLE accounts SET (autovacuum_enabled = false)")
        await connection.execute("ALTER TABLE holds SET (autovacuum_enabled = false)")
    specs = [AccountSpec(IDS.new("acc"), "o", "channel_receivable", "USD") for _ in range(500)]
    opened = await kit.open(specs[:2])
    order = Transfer(
        IDS.new("tfr"),
        debit_account_id=opened[0].id,
        credit_account_id=opened[1].id,
        currency_code="USD",
        amount_minor=1,
        movement="test.move",
        reference_id="ref",
    )
    # The plans are made here, of two accounts and no hold.
    first = replace(order, kind=TransferKind.PENDING, amount_minor=9)
    part = replace(
        order,
        id=IDS.new("tfr"),
        kind=TransferKind.POST,
        pending_id=first.id,
        keep_rest=True,
        debit_account_id="",
        credit_account_id="",
        currency_code="",
    )
    await kit.ledger.post([first])
    await kit.ledger.post([part])
    [shop] = await kit.open(
        [AccountSpec(IDS.new("acc"), "shop", "merchant_pending", "USD", is_buffered=True)]
    )
    credit = replace(order, credit_account_id=shop.id)
    for _ in range(2):  # with the second it is known to be buffered
        await kit.ledger.post([replace(credit, id=IDS.new("tfr"))])
    await kit.open(specs)
    holds = [replace(first, id=IDS.new("tfr")) for _ in range(400)]
    await kit.ledger.post(holds)
    moves = [replace(order, id=IDS.new("tfr")) for _ in range(3)]
    appended = [replace(credit, id=IDS.new("tfr")) for _ in range(2)]
    for orders in ([replace(part, id=IDS.new("tfr"))], moves[:1], moves[1:], appended):
        seen = await _rows_of_a_flush(kit, orders, monkeypatch)
        # Each is looked up some times, to be locked and written: far from all that there are.
        assert seen["accounts"] <= 50, seen
        assert seen.get("holds", 0) <= 50, seen
