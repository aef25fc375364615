"""A ledger in memory: the domain alone, without a database, for scenarios and simulations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from common.ids import encode_time
from services.account.chart_files import read_chart
from services.account.domain.accounts import Account, AccountSpec, AccountStatus, Side
from services.account.domain.batches import Decision, Snapshot
from services.account.domain.bookings import expiry_of
from services.account.domain.decisions import decide
from services.account.domain.requests import WINDOW_DEFAULT, RequestRules
from services.account.domain.transfers import (
    BufferedCredit,
    Chain,
    Entry,
    Fate,
    Hold,
    Refusal,
    StoredTransfer,
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
    split_chains,
)
from services.account.store.statements import StatementLine
from tests.scenarios.account.language import BASE_DATE

_KINDS = read_chart().kinds


class MemoryBooks:
    """Applies decisions to dictionaries."""

    def __init__(self, now: datetime = datetime(2026, 3, 1, tzinfo=UTC)) -> None:
        self._now = now
        self._date = BASE_DATE
        self.accounts: dict[str, Account] = {}
        self.holds: dict[str, Hold] = {}
        self.fates: dict[str, Fate] = {}
        self.stored: dict[str, StoredTransfer] = {}
        self.lines: list[Entry] = []
        self.waiting: list[BufferedCredit] = []

    def now(self) -> datetime:
        """The clock that ids are made from."""
        return self._now

    async def open(self, specs: list[AccountSpec]) -> None:
        """Open accounts."""
        for spec in specs:
            kind = _KINDS[spec.kind]
            self.accounts[spec.id] = Account(
                id=spec.id,
                tenant_id=spec.tenant_id,
                mode=spec.mode,
                currency_code=spec.currency_code,
                normal_side=kind.normal_side,
                status=AccountStatus.NORMAL,
                may_go_negative=kind.may_go_negative,
                credit_limit_minor=spec.credit_limit_minor,
                court_frozen_minor=0,
                debits_posted_minor=0,
                credits_posted_minor=0,
                debits_pending_minor=0,
                credits_pending_minor=0,
                version=1,
                is_buffered=spec.is_buffered,
                owner_id=spec.owner_id,
                merchant_id=spec.merchant_id,
                kind=spec.kind,
                created_at=self._now,
                updated_at=self._now,
            )

    async def post(self, transfers: list[Transfer], *, may_force: bool) -> list[TransferResult]:
        """Book the transfers of one call."""
        chains, still_open = split_chains(transfers)
        rules = RequestRules(self._now, may_force=may_force)
        answers: list[tuple[TransferResult, ...]] = []
        for chain in chains:
            problem = rules.check_chain(chain)
            answers.append(self._decide(chain) if problem is None else _refuse(chain, *problem))
        if still_open:
            answers.append(_refuse(still_open, still_open[-1], Refusal("CHAIN_OPEN")))
        return [result for answer in answers for result in answer]

    def _decide(self, chain: Chain) -> tuple[TransferResult, ...]:
        decision = decide(
            [chain],
            Snapshot(
                self.accounts,
                self.holds,
                self.fates,
                self.stored,
                self._now,
                self._date,
                tombstones_from=f"tfr_{encode_time(self._now - WINDOW_DEFAULT)}",
            ),
        )
        self._apply(decision)
        return decision.answers[0]

    def _apply(self, decision: Decision) -> None:
        for stored in decision.stored:
            assert stored.transfer.id not in self.stored
            self.stored[stored.transfer.id] = stored
            if stored.transfer.kind == TransferKind.PENDING and not stored.booked_minor:
                name = "TOMBSTONE" if stored.is_tombstone else "REFUSED"
                self.fates[stored.transfer.id] = Fate(name)
        self.lines += decision.entries
        self.waiting += decision.appended
        for fold in decision.folds:
            self.accounts[fold.account.id] = replace(
                fold.account,
                debits_posted_minor=fold.debits_posted,
                credits_posted_minor=fold.credits_posted,
                debits_pending_minor=fold.debits_pending,
                credits_pending_minor=fold.credits_pending,
                version=fold.version,
            )
        for hold in (*decision.holds_opened, *decision.holds_changed):
            self.holds[hold.id] = hold
        for pending_id in decision.holds_closed:
            del self.holds[pending_id]
        for resolution in decision.resolutions:
            self.fates[resolution.pending_id] = resolution.fate

    async def set_status(self, account_id: str, status: AccountStatus) -> None:
        """Give an account another status."""
        self._change(account_id, status=status)

    async def change_credit_limit(self, account_id: str, amount_minor: int) -> None:
        """Give an account another credit limit."""
        self._change(account_id, credit_limit_minor=amount_minor)

    async def freeze_by_court(self, account_id: str, amount_minor: int) -> None:
        """Freeze an amount."""
        self._change(account_id, court_frozen_minor=amount_minor)

    def _change(self, account_id: str, **changes: Any) -> None:
        self._drain(account_id)
        account = self.accounts[account_id]
        self.accounts[account_id] = replace(account, version=account.version + 1, **changes)

    async def set_buffering(self, account_id: str, *, is_buffered: bool) -> None:
        """Turn the buffering of single credits on or off."""
        self._change(account_id, is_buffered=is_buffered)

    async def drain(self, account_id: str) -> int:
        """Post what waits in an account's buffer; return how many credits."""
        return self._drain(account_id)

    def _drain(self, account_id: str) -> int:
        due = [credit for credit in self.waiting if credit.account_id == account_id]
        self.waiting = [credit for credit in self.waiting if credit.account_id != account_id]
        for credit in due:
            before = self.accounts[account_id]
            after = replace(
                before,
                credits_posted_minor=before.credits_posted_minor + credit.amount_minor,
                version=before.version + 1,
            )
            self.accounts[account_id] = after
            self.lines.append(
                Entry(
                    account_id,
                    after.version,
                    credit.transfer_id,
                    False,
                    credit.amount_minor,
                    after.debits_posted_minor,
                    after.credits_posted_minor,
                )
            )
        return len(due)

    async def wait(self, seconds: int) -> None:
        """Let the time of holds pass."""
        for hold in self.holds.values():
            if hold.expires_at is not None:
                earlier = hold.expires_at - timedelta(seconds=seconds)
                self.holds[hold.id] = replace(hold, expires_at=earlier)

    async def advance(self, business_date: date) -> None:
        """Advance the business date."""
        self._date = business_date

    async def expire(self) -> int:
        """Expire what is due."""
        due = [h for h in self.holds.values() if h.expires_at and h.expires_at <= self._now]
        results = [self._decide((expiry_of(hold),))[0] for hold in due]
        return sum(result.status == TransferStatus.BOOKED for result in results)

    async def account(self, account_id: str) -> Account:
        """Read an account."""
        waiting = sum(c.amount_minor for c in self.waiting if c.account_id == account_id)
        return replace(self.accounts[account_id], buffered_minor=waiting)

    async def entries(self, account_id: str) -> list[tuple[int, int, int]]:
        """The account's lines: version, change and balance on its normal side."""
        side = self.accounts[account_id].normal_side
        lines = sorted((e for e in self.lines if e.account_id == account_id), key=_version_of)
        return [line_on(side, one) for one in lines]

    async def kept(self, ids: list[str]) -> set[str]:
        """The ids under which something is kept."""
        return self.stored.keys() & set(ids)


def _version_of(line: Entry) -> int:
    return line.version


def line_on(normal_side: str, line: Entry | StatementLine) -> tuple[int, int, int]:
    """Return version, change and balance of a line, on the account's normal side."""
    sign = 1 if normal_side == Side.CREDIT else -1
    change = -line.amount_minor if line.is_debit else line.amount_minor
    balance = line.credits_posted_minor - line.debits_posted_minor
    return line.version, sign * change, sign * balance


def _refuse(chain: Chain, culprit: Transfer, refusal: Refusal) -> tuple[TransferResult, ...]:
    others = Refusal(
        "LINKED_TRANSFER_FAILED", {"culprit_id": culprit.id, "culprit_reason": refusal.reason}
    )
    return tuple(
        TransferResult(t.id, TransferStatus.INVALID, refusal if t is culprit else others)
        for t in chain
    )
