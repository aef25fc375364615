"""What becomes of a batch of transfers: decided here, in arrival order, before anything is written.

A pure function of what was locked and read. Limits make each verdict depend on the ones before it
in the batch, so the batch is played on working copies (`bookings`). Here are the rules of repeats
and of chains.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.account.domain.batches import Decision, Snapshot
from services.account.domain.bookings import Bookings, RefusedError
from services.account.domain.transfers import (
    Chain,
    Refusal,
    StoredTransfer,
    Transfer,
    TransferKind,
    TransferResult,
    TransferStatus,
    first_difference,
)


def decide(chains: Sequence[Chain], snapshot: Snapshot) -> Decision:
    """Decide a batch, in arrival order. The requests were found valid (`requests`)."""
    batch = _Batch(snapshot)
    for chain in chains:
        batch.take(chain)
    return batch.finish()


class _Batch:
    """The verdicts so far."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._decision = Decision()
        self._bookings = Bookings(snapshot, self._decision)
        self._known = self._bookings.known

    def take(self, chain: Chain) -> None:
        """Decide one chain and note its answers."""
        answers = (self._take_one(chain[0]),) if len(chain) == 1 else self._take_chain(chain)
        self._decision.answers.append(answers)
        self._bookings.release_overdue()

    def finish(self) -> Decision:
        """Return the verdicts and what is to be written."""
        self._bookings.finish()
        return self._decision

    def _take_one(self, transfer: Transfer) -> TransferResult:
        known = self._known.get(transfer.id)
        if known is not None:
            return self._repeat(transfer, known)
        try:
            return self._bookings.book(transfer).answer(replayed=False)
        except RefusedError as error:
            if error.burned:
                return self._burn(transfer, error.refusal)
            self._decision.needs_existing = True
            return TransferResult(transfer.id, TransferStatus.INVALID, error.refusal)

    def _repeat(self, transfer: Transfer, known: StoredTransfer) -> TransferResult:
        if known.is_tombstone and transfer.kind == TransferKind.PENDING:
            return known.answer(replayed=False)
        different = first_difference(transfer, known.transfer)
        if different is None:
            return known.answer(replayed=True)
        refusal = Refusal("ID_CONFLICT", {"id": transfer.id, "field": different})
        return TransferResult(transfer.id, TransferStatus.INVALID, refusal)

    def _take_chain(self, chain: Chain) -> tuple[TransferResult, ...]:
        known = [self._known.get(transfer.id) for transfer in chain]
        fresh = [
            stored is None or (stored.is_tombstone and transfer.kind == TransferKind.PENDING)
            for transfer, stored in zip(chain, known, strict=True)
        ]
        if all(fresh):
            return self._book_chain(chain)
        # A chain is booked all or none, so one of which some ids are kept is another chain.
        answers = [
            None if stored is None else self._repeat(transfer, stored)
            for transfer, stored in zip(chain, known, strict=True)
        ]
        culprit = next(
            (a for a in answers if a is not None and a.status == TransferStatus.INVALID),
            next(a for a in answers if a is not None),
        )
        refusal = _linked_failed(culprit.transfer_id, "ID_CONFLICT")
        return tuple(
            answer or TransferResult(transfer.id, TransferStatus.INVALID, refusal)
            for transfer, answer in zip(chain, answers, strict=True)
        )

    def _book_chain(self, chain: Chain) -> tuple[TransferResult, ...]:
        self._bookings.begin_chain()
        answers: list[TransferResult] = []
        for transfer in chain:
            try:
                if transfer.kind != TransferKind.PENDING and transfer.id in self._known:
                    # An earlier one of the chain voided this id before it came.
                    refusal = Refusal("ID_CONFLICT", {"id": transfer.id, "field": "kind"})
                    raise RefusedError(refusal, burned=False)
                answers.append(self._bookings.book(transfer).answer(replayed=False))
            except RefusedError as error:
                self._bookings.undo_chain()
                return self._fail_chain(chain, transfer, error)
        self._bookings.end_chain()
        return tuple(answers)

    def _fail_chain(
        self, chain: Chain, culprit: Transfer, error: RefusedError
    ) -> tuple[TransferResult, ...]:
        others = _linked_failed(culprit.id, error.refusal.reason)
        refusals = [error.refusal if t is culprit else others for t in chain]
        if error.burned:
            return tuple(self._burn(t, r) for t, r in zip(chain, refusals, strict=True))
        self._decision.needs_existing = True
        return tuple(self._leave(t, r) for t, r in zip(chain, refusals, strict=True))

    def _leave(self, transfer: Transfer, refusal: Refusal) -> TransferResult:
        tombstone = self._known.get(transfer.id)
        if tombstone is not None and transfer.kind == TransferKind.PENDING:
            return tombstone.answer(replayed=False)
        return TransferResult(transfer.id, TransferStatus.INVALID, refusal)

    def _burn(self, transfer: Transfer, refusal: Refusal) -> TransferResult:
        tombstone = self._known.get(transfer.id)
        if tombstone is not None:  # it burned the id before
            return tombstone.answer(replayed=False)
        snapshot = self._snapshot
        stored = StoredTransfer(
            transfer, TransferStatus.REFUSED, refusal, 0, snapshot.business_date, snapshot.now
        )
        self._bookings.keep(stored)
        return stored.answer(replayed=False)


def _linked_failed(culprit_id: str, culprit_reason: str) -> Refusal:
    return Refusal(
        "LINKED_TRANSFER_FAILED", {"culprit_id": culprit_id, "culprit_reason": culprit_reason}
    )
