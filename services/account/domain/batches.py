"""What a batch is decided from, and what falls out: verdicts, and one change an account.

`Fold` plays a batch on one account, however many transfers of it touch the account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime

from services.account.domain.accounts import AccountState, Side
from services.account.domain.transfers import (
    BufferedCredit,
    Entry,
    Fate,
    Hold,
    Resolution,
    StoredTransfer,
    TransferResult,
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a flush locked and read before it decides."""

    accounts: Mapping[str, AccountState]
    """The locked accounts by id; one that is missing does not exist."""
    holds: Mapping[str, Hold]
    """The locked open holds by the id of their pending transfer."""
    fates: Mapping[str, Fate]
    """What became of pending transfers without an open hold; one that is missing never came."""
    existing: Mapping[str, StoredTransfer]
    """What is kept already under ids of the batch."""
    now: datetime
    """The database's clock, which judges expiry."""
    business_date: date
    tombstones_from: str = ""
    """Lowest pending id that may still arrive; for older ones a void needs no tombstone."""
    shared: frozenset[str] = frozenset()
    """Those of the accounts that other batches may credit meanwhile: buffered ones, of which only
    what never changes, status and limits may be believed, and whose sums stay as they are."""


@dataclass(slots=True)
class Decision:
    """The verdicts, and what has to be written for them."""

    answers: list[tuple[TransferResult, ...]] = field(default_factory=list)
    """One tuple per chain, in the order of the batch."""
    stored: list[StoredTransfer] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    appended: list[BufferedCredit] = field(default_factory=list)
    """Credits of buffered accounts, in the order of the batch."""
    folds: list[Fold] = field(default_factory=list)
    holds_opened: list[Hold] = field(default_factory=list)
    holds_changed: list[Hold] = field(default_factory=list)
    holds_closed: list[str] = field(default_factory=list)
    resolutions: list[Resolution] = field(default_factory=list)
    needs_existing: bool = False
    """Some answer is kept under no id, so a repeat would go unnoticed unless ids were read."""


class Fold:
    """All that a batch does to one account: its sums and version afterwards."""

    __slots__ = (
        "account",
        "appended",
        "credits_pending",
        "credits_posted",
        "debits_pending",
        "debits_posted",
        "version",
    )

    def __init__(self, account: AccountState) -> None:
        self.account = account
        self.debits_posted = account.debits_posted_minor
        self.credits_posted = account.credits_posted_minor
        self.debits_pending = account.debits_pending_minor
        self.credits_pending = account.credits_pending_minor
        self.appended = 0
        self.version = account.version

    def save(self) -> tuple[int, int, int, int, int, int]:
        """Return what `restore` needs."""
        return (
            self.debits_posted,
            self.credits_posted,
            self.debits_pending,
            self.credits_pending,
            self.appended,
            self.version,
        )

    def restore(self, saved: tuple[int, int, int, int, int, int]) -> None:
        """Be again what `save` saw."""
        (
            self.debits_posted,
            self.credits_posted,
            self.debits_pending,
            self.credits_pending,
            self.appended,
            self.version,
        ) = saved

    @property
    def room_for_credits(self) -> int:
        """How much more may be credited; pending counts too, so that a post never overflows."""
        taken = self.credits_posted + self.credits_pending + self.appended
        return self.account.credits_minor_max - taken

    def lacks(self, amount_minor: int, *, is_debit: bool) -> bool:
        """Whether moving the amount out would break the account's limit."""
        account = self.account
        if account.may_go_negative or (account.normal_side == Side.CREDIT) != is_debit:
            return False
        spendable = self.carried() + account.credit_limit_minor
        return spendable < amount_minor

    def most_debited(self, amount_minor: int) -> int:
        """The most that a balancing debit takes: all that the limit leaves; may be below 1."""
        account = self.account
        if account.may_go_negative or account.normal_side != Side.CREDIT:
            return amount_minor
        return min(amount_minor, self.carried() + account.credit_limit_minor)

    def carried(self) -> int:
        """What is on the account and held back by nothing; below zero when in debt."""
        account = self.account
        if account.normal_side == Side.CREDIT:
            available = self.credits_posted - self.debits_posted - self.debits_pending
        else:
            available = self.debits_posted - self.credits_posted - self.credits_pending
        return available - account.court_frozen_minor

    def breaks_court_freeze(self, amount_minor: int, *, is_debit: bool) -> bool:
        """Whether posting an older hold would touch what a court has frozen."""
        frozen = self.account.court_frozen_minor
        if not frozen:
            return False
        if (self.account.normal_side == Side.CREDIT) != is_debit:
            return False
        balance = self.credits_posted - self.debits_posted
        return (balance if is_debit else -balance) - amount_minor < frozen
