"""What a batch is played on: the books as they stand after the transfers booked so far.

Sums change on working copies; what they amount to is noted in the decision. While a chain is under
way, each change is remembered, so that the whole of it can be undone.
"""

from __future__ import annotations

from typing import Any

from services.account.domain.batches import Decision, Fold, Snapshot
from services.account.domain.transfers import (
    BufferedCredit,
    Entry,
    Fate,
    Hold,
    Resolution,
    StoredTransfer,
    Transfer,
    TransferStatus,
)


class Workings:
    """Accounts, holds and answers of a batch, and what is to be written of them."""

    def __init__(self, snapshot: Snapshot, decision: Decision) -> None:
        self._snapshot = snapshot
        self._decision = decision
        self._folds: dict[str, Fold] = {}
        self._holds: dict[str, Hold] = dict(snapshot.holds)
        self._fates: dict[str, Fate] = dict(snapshot.fates)
        self.known: dict[str, StoredTransfer] = dict(snapshot.existing)
        self._resolutions: dict[str, Resolution] = {}
        # While a chain is under way: what to do to undo it, latest last.
        self._undo: list[tuple[Any, Any, Any]] | None = None
        self._lengths = 0, 0, 0

    # Chains.

    def begin_chain(self) -> None:
        """From here on, remember how to undo."""
        self._undo = []
        decision = self._decision
        self._lengths = len(decision.stored), len(decision.entries), len(decision.appended)

    def end_chain(self) -> None:
        """All of the chain stays."""
        self._undo = None

    def undo_chain(self) -> None:
        """Nothing of the chain stays."""
        for target, key, old in reversed(self._undo or []):
            if isinstance(target, Fold):
                target.restore(old)
            elif old is None:
                target.pop(key, None)
            else:
                target[key] = old
        self._undo = None
        stored, entries, appended = self._lengths
        del self._decision.stored[stored:]
        del self._decision.entries[entries:]
        del self._decision.appended[appended:]

    def finish(self) -> None:
        """Note what is to be written of accounts and holds."""
        decision, before = self._decision, self._snapshot.holds
        decision.folds = [f for f in self._folds.values() if f.version != f.account.version]
        shared = self._snapshot.shared
        if shared and any(fold.account.id in shared for fold in decision.folds):
            raise RuntimeError("a batch changes an account that it shares with others")
        for pending_id, hold in self._holds.items():
            old = before.get(pending_id)
            if old is None:
                decision.holds_opened.append(hold)
            elif old is not hold:
                decision.holds_changed.append(hold)
        decision.holds_closed = [i for i in before if i not in self._holds]
        decision.resolutions = list(self._resolutions.values())

    # Noting.

    def _resolve(self, hold: Hold, fate: Fate, transfer: Transfer, posted_minor: int) -> None:
        if self._undo is not None:
            self._undo.append((self._holds, hold.id, hold))
        del self._holds[hold.id]
        self._set(self._fates, hold.id, fate)
        resolution = Resolution(hold.id, fate, transfer.id, posted_minor)
        self._set(self._resolutions, hold.id, resolution)

    def _enter(
        self, transfer: Transfer, debit: Fold, credit: Fold, amount: int, redirected_to: str | None
    ) -> StoredTransfer:
        """Write the two lines of a movement; the sums are changed already."""
        self._write_line(transfer, debit, amount, is_debit=True)
        self._write_line(transfer, credit, amount, is_debit=False)
        stored = StoredTransfer(
            transfer,
            TransferStatus.BOOKED,
            None,
            amount,
            self._snapshot.business_date,
            self._snapshot.now,
            redirected_to,
            debit.version,
            credit.version,
        )
        self.keep(stored)
        return stored

    def _append(
        self, transfer: Transfer, debit: Fold, credit: Fold, amount: int, redirected_to: str | None
    ) -> StoredTransfer:
        """Write the debit's line, and the credit into the buffer, whose drain writes the other."""
        self._write_line(transfer, debit, amount, is_debit=True)
        self._decision.appended.append(BufferedCredit(credit.account.id, transfer.id, amount))
        stored = StoredTransfer(
            transfer,
            TransferStatus.BOOKED,
            None,
            amount,
            self._snapshot.business_date,
            self._snapshot.now,
            redirected_to,
            debit.version,
            is_buffered=True,
        )
        self.keep(stored)
        return stored

    def _write_line(self, transfer: Transfer, fold: Fold, amount: int, *, is_debit: bool) -> None:
        fold.version += 1
        entry = Entry(
            fold.account.id,
            fold.version,
            transfer.id,
            is_debit,
            amount,
            fold.debits_posted,
            fold.credits_posted,
        )
        self._decision.entries.append(entry)

    def _keep_booked(self, transfer: Transfer, amount: int) -> StoredTransfer:
        snapshot = self._snapshot
        stored = StoredTransfer(
            transfer, TransferStatus.BOOKED, None, amount, snapshot.business_date, snapshot.now
        )
        self.keep(stored)
        return stored

    def keep(self, stored: StoredTransfer) -> None:
        """Keep what became of a transfer under its id."""
        self._decision.stored.append(stored)
        self._set(self.known, stored.transfer.id, stored)

    def _set(self, target: dict[str, Any], key: str, value: object) -> None:
        if self._undo is not None:
            self._undo.append((target, key, target.get(key)))
        target[key] = value

    def _save(self, *folds: Fold) -> None:
        if self._undo is not None:
            self._undo.extend((fold, None, fold.save()) for fold in folds)
