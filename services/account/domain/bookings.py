"""One transfer booked on working copies: every rule that refuses it, every sum that it changes.

Everything is checked before anything is changed, so a refused transfer leaves no trace; a chain is
undone as a whole.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final, NoReturn

from common.ids import book_of, derive
from services.account.domain.accounts import (
    SUM_MINOR_MAX,
    UNCLAIMED,
    AccountState,
    AccountStatus,
    Side,
    platform_account_id,
)
from services.account.domain.batches import Decision, Fold, Snapshot
from services.account.domain.statuses import REFUND_PREFIXES, RULES, Operation, Taken
from services.account.domain.transfers import (
    Fate,
    Hold,
    Refusal,
    StoredTransfer,
    Transfer,
    TransferKind,
    TransferStatus,
)
from services.account.domain.workings import Workings


class RefusedError(Exception):
    """A transfer cannot be booked; `burned` when that is to be kept under its id."""

    def __init__(self, refusal: Refusal, *, burned: bool) -> None:
        self.refusal = refusal
        self.burned = burned


def _refuse(reason: str, **metadata: object) -> NoReturn:
    raise RefusedError(Refusal(reason, {k: str(v) for k, v in metadata.items()}), burned=True)


def _reject(reason: str, **metadata: object) -> NoReturn:
    raise RefusedError(Refusal(reason, {k: str(v) for k, v in metadata.items()}), burned=False)


_ENDED: Final[dict[Fate, str]] = {
    Fate.POSTED: "PENDING_ALREADY_POSTED",
    Fate.PART_POSTED: "PENDING_ALREADY_POSTED",
    Fate.VOIDED: "PENDING_ALREADY_VOIDED",
    Fate.TOMBSTONE: "PENDING_ALREADY_VOIDED",
    Fate.EXPIRED: "HOLD_EXPIRED",
    Fate.REFUSED: "PENDING_NOT_FOUND",
    Fate.NOT_PENDING: "TRANSFER_NOT_PENDING",
}


class Bookings(Workings):
    """The rules of booking, on the workings of one batch."""

    def __init__(self, snapshot: Snapshot, decision: Decision) -> None:
        super().__init__(snapshot, decision)
        self._overdue: list[Hold] = []

    def book(self, transfer: Transfer) -> StoredTransfer:
        """Book a transfer, or raise RefusedError and change nothing."""
        if transfer.kind == TransferKind.SINGLE:
            return self._book_single(transfer)
        if transfer.kind == TransferKind.PENDING:
            return self._book_pending(transfer)
        if transfer.kind == TransferKind.POST:
            return self._post(transfer)
        return self._release(transfer)

    def _book_single(self, transfer: Transfer) -> StoredTransfer:
        debit, credit = self._parties(transfer)
        redirected_to = None
        if debit.account.status != AccountStatus.NORMAL:
            self._check_takes(debit, Operation.DEBIT)
        amount = _amount_of(transfer, debit, credit)
        if credit.account.status != AccountStatus.NORMAL:
            is_refund = transfer.movement.startswith(REFUND_PREFIXES)
            operation = Operation.REFUND_CREDIT if is_refund else Operation.CREDIT
            target = self._credit_target(amount, debit, credit, operation)
            redirected_to = None if target is credit else target.account.id
            credit = target
        self._check_amount(amount, debit, credit, forced=transfer.forced)
        self._save(debit, credit)
        debit.debits_posted += amount
        if credit.account.is_buffered:
            credit.appended += amount
            return self._append(transfer, debit, credit, amount, redirected_to)
        credit.credits_posted += amount
        return self._enter(transfer, debit, credit, amount, redirected_to)

    def _book_pending(self, transfer: Transfer) -> StoredTransfer:
        if transfer.id in self.known:  # a void came first
            _refuse("PENDING_ALREADY_VOIDED", pending_id=transfer.id)
        debit, credit = self._parties(transfer)
        if debit.account.status != AccountStatus.NORMAL:
            self._check_takes(debit, Operation.DEBIT)
        if credit.account.status != AccountStatus.NORMAL:
            self._check_takes(credit, Operation.PENDING_CREDIT)
        amount = _amount_of(transfer, debit, credit)
        self._check_amount(amount, debit, credit, forced=transfer.forced)
        self._save(debit, credit)
        debit.debits_pending += amount
        credit.credits_pending += amount
        debit.version += 1
        credit.version += 1
        timeout = transfer.timeout_seconds
        hold = Hold(
            transfer.id,
            transfer.tenant_id,
            transfer.mode,
            transfer.debit_account_id,
            transfer.credit_account_id,
            transfer.currency_code,
            amount,
            0,
            self._snapshot.now + timedelta(seconds=timeout) if timeout else None,
        )
        self._set(self._holds, transfer.id, hold)
        return self._keep_booked(transfer, amount)

    def _post(self, transfer: Transfer) -> StoredTransfer:
        hold = self._open_hold(transfer)
        transfer = _with_parties_of(hold, transfer)
        amount = transfer.amount_minor or hold.held_minor
        if amount > hold.held_minor:
            _refuse("POST_EXCEEDS_PENDING", pending_id=hold.id, held_minor=hold.held_minor)
        debit, credit = self._fold(hold.debit_account_id), self._fold(hold.credit_account_id)
        self._check_takes(debit, Operation.POST_DEBIT)
        for fold, is_debit in ((debit, True), (credit, False)):
            if fold.breaks_court_freeze(amount, is_debit=is_debit):
                _refuse("ACCOUNT_DEBIT_FROZEN", account_id=fold.account.id)
        target = self._credit_target(amount, debit, credit, Operation.POST_CREDIT)
        rest = hold.held_minor - amount
        keeps_rest = transfer.keep_rest and rest > 0
        returned = amount if keeps_rest else hold.held_minor
        self._save(debit, credit, target)
        debit.debits_pending -= returned
        credit.credits_pending -= returned
        debit.debits_posted += amount
        target.credits_posted += amount
        posted = hold.posted_minor + amount
        if keeps_rest:
            self._set(self._holds, hold.id, replace(hold, held_minor=rest, posted_minor=posted))
        else:
            self._resolve(hold, Fate.PART_POSTED if rest else Fate.POSTED, transfer, posted)
        redirected_to = None
        if target is not credit:
            credit.version += 1
            redirected_to = target.account.id
        return self._enter(transfer, debit, target, amount, redirected_to)

    def _release(self, transfer: Transfer) -> StoredTransfer:
        """Void or expire a hold: all that it still keeps goes back."""
        if transfer.kind == TransferKind.VOID and self._is_voided_by_word(transfer):
            return self._keep_booked(transfer, 0)
        hold = self._open_hold(transfer)
        transfer = _with_parties_of(hold, transfer)
        debit, credit = self._fold(hold.debit_account_id), self._fold(hold.credit_account_id)
        self._check_takes(debit, Operation.RETURN)
        self._check_takes(credit, Operation.RETURN)
        self._save(debit, credit)
        debit.debits_pending -= hold.held_minor
        credit.credits_pending -= hold.held_minor
        debit.version += 1
        credit.version += 1
        fate = Fate.VOIDED if transfer.kind == TransferKind.VOID else Fate.EXPIRED
        self._resolve(hold, fate, transfer, hold.posted_minor)
        return self._keep_booked(transfer, hold.held_minor)

    def _is_voided_by_word(self, transfer: Transfer) -> bool:
        """Whether nothing is held and nothing ever will be, so that the void has no more to do."""
        pending_id = transfer.pending_id
        if pending_id in self._holds:
            return False
        fate = self._fate_of(pending_id)
        if fate is None and pending_id >= self._snapshot.tombstones_from:
            mark = replace(
                transfer,
                id=pending_id,
                kind=TransferKind.PENDING,
                pending_id="",
                debit_account_id="",
                credit_account_id="",
                currency_code="",
                linked=False,
            )
            refusal = Refusal("PENDING_ALREADY_VOIDED", {"pending_id": pending_id})
            self.keep(
                StoredTransfer(
                    mark,
                    TransferStatus.REFUSED,
                    refusal,
                    0,
                    self._snapshot.business_date,
                    self._snapshot.now,
                )
            )
        return fate in (None, Fate.REFUSED)

    def release_overdue(self) -> None:
        """Give back what the expired holds that were met still keep."""
        overdue, self._overdue = self._overdue, []
        for hold in overdue:
            if hold.id in self._holds and self._holds[hold.id].held_minor == hold.held_minor:
                self._release(expiry_of(hold))

    # Parts of booking.

    def _fold(self, account_id: str) -> Fold:
        fold = self._folds.get(account_id)
        if fold is None:
            account = self._snapshot.accounts.get(account_id)
            if account is None:
                _refuse("ACCOUNT_NOT_FOUND", account_id=account_id)
            fold = self._folds[account_id] = Fold(account)
        return fold

    def _parties(self, transfer: Transfer) -> tuple[Fold, Fold]:
        debit = self._fold(transfer.debit_account_id)
        credit = self._fold(transfer.credit_account_id)
        for fold in (debit, credit):
            account = fold.account
            if account.tenant_id != transfer.tenant_id or account.mode != transfer.mode:
                _refuse("ACCOUNT_NOT_FOUND", account_id=account.id)
            if account.currency_code != transfer.currency_code:
                _reject(
                    "CURRENCY_MISMATCH",
                    account_id=account.id,
                    expected=account.currency_code,
                    got=transfer.currency_code,
                )
        return debit, credit

    def _check_amount(self, amount: int, debit: Fold, credit: Fold, *, forced: bool) -> None:
        # Pending counts too, so that a post never overflows.
        if debit.debits_posted + debit.debits_pending + amount > SUM_MINOR_MAX:
            _refuse("BALANCE_OVERFLOW", account_id=debit.account.id)
        if amount > credit.room_for_credits:
            _refuse("BALANCE_OVERFLOW", account_id=credit.account.id)
        if forced:
            return
        if debit.lacks(amount, is_debit=True):
            _refuse("INSUFFICIENT_FUNDS", account_id=debit.account.id)
        if credit.lacks(amount, is_debit=False):
            _refuse("INSUFFICIENT_FUNDS", account_id=credit.account.id)

    def _check_takes(self, fold: Fold, operation: Operation) -> None:
        taken, reason = RULES[fold.account.status, operation]
        if taken is not Taken.YES:
            _refuse(reason, account_id=fold.account.id)

    def _credit_target(self, amount: int, debit: Fold, credit: Fold, operation: Operation) -> Fold:
        """The account that takes the credit: the ordered one, or the book's unclaimed account."""
        taken, reason = RULES[credit.account.status, operation]
        if taken is Taken.YES:
            return credit
        if taken is Taken.UNCLAIMED:
            account_id = unclaimed_account_id(credit.account)
            if account_id in self._snapshot.accounts:
                target = self._fold(account_id)
                is_open = target.account.status == AccountStatus.NORMAL
                if is_open and target is not debit and target.room_for_credits >= amount:
                    return target
        _refuse(reason, account_id=credit.account.id)

    def _open_hold(self, transfer: Transfer) -> Hold:
        hold = self._holds.get(transfer.pending_id)
        if hold is None:
            fate = self._fate_of(transfer.pending_id)
            reason = "PENDING_NOT_FOUND" if fate is None else _ENDED[fate]
            _refuse(reason, pending_id=transfer.pending_id)
        if (hold.tenant_id, hold.mode) != (transfer.tenant_id, transfer.mode):
            _refuse("PENDING_NOT_FOUND", pending_id=transfer.pending_id)
        is_over = hold.expires_at is not None and hold.expires_at <= self._snapshot.now
        if is_over and transfer.kind != TransferKind.EXPIRE:
            self._overdue.append(hold)
            _refuse("HOLD_EXPIRED", pending_id=hold.id)
        if not is_over and transfer.kind == TransferKind.EXPIRE:
            _reject("FIELD_INVALID", field="pending_id", rule="is not over yet")
        return hold

    def _fate_of(self, pending_id: str) -> Fate | None:
        fate = self._fates.get(pending_id)
        if fate is None:
            known = self.known.get(pending_id)
            if known is not None:
                if known.transfer.kind != TransferKind.PENDING:
                    return Fate.NOT_PENDING
                return Fate.TOMBSTONE if known.is_tombstone else Fate.REFUSED
        return fate


def unclaimed_account_id(account: AccountState) -> str:
    """Return the id of the account that takes the credits which `account` cannot take."""
    return platform_account_id(
        UNCLAIMED,
        account.currency_code,
        tenant_id=account.tenant_id,
        mode=account.mode,
        book=book_of(account.id),
    )


def expiry_of(hold: Hold) -> Transfer:
    """Return the transfer that ends a hold whose time is over: always the same for one hold."""
    return Transfer(
        id=derive("tfr", hold.id, "expire"),
        kind=TransferKind.EXPIRE,
        pending_id=hold.id,
        movement="hold.expire",
        reference_id=hold.id,
        tenant_id=hold.tenant_id,
        mode=hold.mode,
        actor="SERVICE:account",
    )


def _amount_of(transfer: Transfer, debit: Fold, credit: Fold) -> int:
    """The amount that is moved or held: as ordered, or when balancing as much of it as there is."""
    amount = transfer.amount_minor
    if not (transfer.balancing_debit or transfer.balancing_credit):
        return amount
    if transfer.balancing_debit:
        amount = debit.most_debited(amount)
        if amount < 1:
            _refuse("INSUFFICIENT_FUNDS", account_id=debit.account.id)
    if transfer.balancing_credit:
        if credit.account.normal_side != Side.DEBIT:
            _reject(
                "FIELD_INVALID", field="balancing_credit", rule="needs one that grows by debits"
            )
        amount = min(amount, credit.carried())
        if amount < 1:
            _refuse("INSUFFICIENT_FUNDS", account_id=credit.account.id)
    return amount


def _with_parties_of(hold: Hold, transfer: Transfer) -> Transfer:
    """Return a later step with the accounts and currency of its hold; they may not differ."""
    for name in ("debit_account_id", "credit_account_id", "currency_code"):
        said = getattr(transfer, name)
        if said and said != getattr(hold, name):
            _reject("PENDING_FIELD_DIFFERS", field=name, pending_id=hold.id)
    return replace(
        transfer,
        debit_account_id=hold.debit_account_id,
        credit_account_id=hold.credit_account_id,
        currency_code=hold.currency_code,
    )
