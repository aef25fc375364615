"""A few accounts and what is decided of transfers between them, for tests of single decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any, Final

from common.ids import derive, encode_time
from services.account.domain.accounts import Account, AccountStatus, Side
from services.account.domain.batches import Decision, Snapshot
from services.account.domain.decisions import decide
from services.account.domain.transfers import Chain, StoredTransfer, Transfer, TransferResult

NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
_PARENT: Final = ("tst_" + encode_time(NOW)).ljust(30, "0")


def account(name: str, posted: int = 0, **changes: Any) -> Account:
    """An account of an owner's money in USD, with so much on its normal side."""
    normal_side = changes.pop("normal_side", Side.CREDIT)
    debits, credited = (0, posted) if normal_side == Side.CREDIT else (posted, 0)
    made = Account(
        id=derive("acc", _PARENT, name),
        tenant_id="default",
        mode="LIVE",
        owner_id=f"owner-{name}",
        merchant_id="",
        kind="user_available",
        currency_code="USD",
        normal_side=normal_side,
        status=AccountStatus.NORMAL,
        may_go_negative=False,
        credit_limit_minor=0,
        court_frozen_minor=0,
        debits_posted_minor=debits,
        credits_posted_minor=credited,
        debits_pending_minor=0,
        credits_pending_minor=0,
        version=1,
        is_buffered=False,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(made, **changes)


def transfer(number: int, debit: Account, credit: Account, amount: int, **changes: Any) -> Transfer:
    """A single movement between two."""
    made = Transfer(
        derive("tfr", _PARENT, number),
        debit_account_id=debit.id,
        credit_account_id=credit.id,
        currency_code=debit.currency_code,
        amount_minor=amount,
        movement="test.move",
        reference_id="ref",
    )
    return replace(made, **changes)


@dataclass
class Decided:
    """What was locked, and what was decided on it."""

    accounts: list[Account]
    existing: Mapping[str, StoredTransfer] = field(default_factory=dict)
    shared: Sequence[Account] = ()

    def take(self, *chains: Transfer | Chain) -> Decision:
        """Decide a batch."""
        snapshot = Snapshot(
            accounts={one.id: one for one in self.accounts},
            holds={},
            fates={},
            existing=self.existing,
            now=NOW,
            business_date=date(2026, 3, 1),
            shared=frozenset(one.id for one in self.shared),
        )
        return decide([(c,) if isinstance(c, Transfer) else c for c in chains], snapshot)

    def result(self, one: Transfer) -> TransferResult:
        """Decide one transfer alone."""
        return self.take(one).answers[0][0]
