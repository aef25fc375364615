"""Transfers: what may be asked of the ledger, what it keeps, what it answers.

A transfer is immutable and moves one amount between two accounts, at once or in two phases; a
later step is a transfer of its own that names the first (TigerBeetle's reference, Transfer).

Nothing here is ever changed once it is made. What is made for each transfer is not declared frozen
all the same: setting the fields of a frozen dataclass took a fifth of the ledger's time.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime


class TransferKind(enum.StrEnum):
    """What a transfer does."""

    UNSPECIFIED = "UNSPECIFIED"
    """None that the ledger knows: such a transfer is invalid."""
    SINGLE = "SINGLE"
    PENDING = "PENDING"
    POST = "POST"
    VOID = "VOID"
    EXPIRE = "EXPIRE"
    """Made by the ledger itself when the time of a hold is over."""


class TransferStatus(enum.StrEnum):
    """What became of a transfer."""

    BOOKED = "BOOKED"
    """Moved, held, posted or given back, as its kind says."""
    REFUSED = "REFUSED"
    """Refused, and the id is burned: a repeat gets the same refusal for ever."""
    INVALID = "INVALID"
    """No valid request; nothing is kept under the id."""


class Fate(enum.StrEnum):
    """What became of a pending transfer that holds nothing (any more)."""

    POSTED = "POSTED"
    PART_POSTED = "PART_POSTED"
    """Part of it was posted, the rest went back."""
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    """It never held anything: it was refused, or voided before it arrived."""
    TOMBSTONE = "TOMBSTONE"
    """It has not arrived, and will be refused when it does."""
    NOT_PENDING = "NOT_PENDING"
    """The id is that of a transfer of another kind."""


@dataclass(slots=True)
class Transfer:
    """An order to the ledger."""

    id: str
    """`tfr_…`, made and stored by the caller before sending."""
    kind: TransferKind = TransferKind.SINGLE
    debit_account_id: str = ""
    """May be empty for POST and VOID, else it must be the pending transfer's."""
    credit_account_id: str = ""
    currency_code: str = ""
    amount_minor: int = 0
    """Above zero; a maximum when balancing. For POST, 0 is all that is held; for VOID always 0."""
    pending_id: str = ""
    keep_rest: bool = False
    """For POST of a part: the rest stays held for further posts; else it returns."""
    timeout_seconds: int = 0
    """For PENDING: life of the hold by the database's clock; 0 is for ever."""
    linked: bool = False
    """Linked to the next of the call: all of a chain are booked or none."""
    forced: bool = False
    """May take an account below its limit; for chargebacks, bank returns and corrections."""
    balancing_debit: bool = False
    """The amount is a maximum: what the debited account can give is taken, up to it."""
    balancing_credit: bool = False
    """The amount is a maximum: what the credited account still carries is taken, up to it."""
    movement: str = ""
    reference_id: str = ""
    value_on: date | None = None
    biz_trace_id: str = ""
    tenant_id: str = "default"
    mode: str = "LIVE"
    merchant_id: str = ""
    actor: str = ""


Chain = tuple[Transfer, ...]
"""Transfers that are booked all or none; a transfer that is linked to nothing is a chain of one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a transfer was not booked."""

    reason: str
    """Name in `paymesh.error.v1.ErrorReason`, without its prefix."""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TransferResult:
    """What became of one transfer."""

    transfer_id: str
    status: TransferStatus
    refusal: Refusal | None = None
    replayed: bool = False
    """The answer of an earlier call with the same id."""
    booked_minor: int = 0
    """What was really moved, held or given back, in minor units."""
    business_date: date | None = None
    booked_at: datetime | None = None
    redirected_to: str = ""
    """The account that was credited in place of one that takes no credits."""
    is_buffered: bool = False
    """The credit waits in the account's buffer at first."""

    @property
    def reason(self) -> str:
        """Name of the reason when not booked, else empty."""
        return "" if self.refusal is None else self.refusal.reason


@dataclass(slots=True)
class StoredTransfer:
    """What the ledger keeps under an id, for ever."""

    transfer: Transfer
    """As it came; a POST, VOID or EXPIRE has the accounts and currency of its pending one."""
    status: TransferStatus
    refusal: Refusal | None
    booked_minor: int
    business_date: date
    booked_at: datetime
    redirected_to: str | None = None
    """The account that was credited in place of one that takes no credits."""
    debit_version: int = 0
    """Version of the debited account after it, which finds the entry; 0 without an entry."""
    credit_version: int = 0
    is_buffered: bool = False
    """The credit went to a buffer: its entry is made when that is drained."""

    @property
    def is_tombstone(self) -> bool:
        """Whether this is a void's mark for a pending transfer that has not arrived."""
        return (
            self.status == TransferStatus.REFUSED
            and self.transfer.kind == TransferKind.PENDING
            and not self.transfer.debit_account_id
        )

    def answer(self, *, replayed: bool) -> TransferResult:
        """Return the result that the caller gets, the first time and ever after."""
        return TransferResult(
            self.transfer.id,
            self.status,
            self.refusal,
            replayed,
            self.booked_minor,
            self.business_date,
            self.booked_at,
            self.redirected_to or "",
            self.is_buffered,
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """What a pending transfer still keeps back."""

    id: str
    tenant_id: str
    mode: str
    debit_account_id: str
    credit_account_id: str
    currency_code: str
    held_minor: int
    """What is still held; above zero."""
    posted_minor: int
    """What earlier posts took of it."""
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The end of a pending transfer; there is at most one under its id."""

    pending_id: str
    fate: Fate
    resolved_by: str
    posted_minor: int


@dataclass(slots=True)
class Entry:
    """One line on one account, with its sums after it."""

    account_id: str
    version: int
    transfer_id: str
    is_debit: bool
    amount_minor: int
    debits_posted_minor: int
    credits_posted_minor: int


@dataclass(frozen=True, slots=True)
class BufferedCredit:
    """A credit that was booked and waits for the drain, which makes its entry."""

    account_id: str
    transfer_id: str
    amount_minor: int


# What a repeat must say again. The circumstances (actor, story) may differ: another instance of
# the caller may send the retry.
COMPARED = (
    "kind",
    "pending_id",
    "debit_account_id",
    "credit_account_id",
    "currency_code",
    "amount_minor",
    "keep_rest",
    "timeout_seconds",
    "linked",
    "forced",
    "balancing_debit",
    "balancing_credit",
    "movement",
    "reference_id",
    "value_on",
    "tenant_id",
    "mode",
    "merchant_id",
)
_TAKEN_FROM_PENDING = frozenset({"debit_account_id", "credit_account_id", "currency_code"})


def first_difference(repeat: Transfer, stored: Transfer) -> str | None:
    """Return the first field in which a repeat differs from what is kept, or None.

    What a POST or VOID leaves out was taken from its pending transfer, and is no difference.
    """
    for name in COMPARED:
        said = getattr(repeat, name)
        if said != getattr(stored, name) and not (
            said == "" and repeat.pending_id and name in _TAKEN_FROM_PENDING
        ):
            return name
    return None


def split_chains(transfers: Sequence[Transfer]) -> tuple[list[Chain], Chain]:
    """Cut the transfers of one call into chains; also return the open chain at its end, if any."""
    chains: list[Chain] = []
    begun: list[Transfer] = []
    for transfer in transfers:
        if transfer.linked:
            begun.append(transfer)
        elif begun:
            chains.append((*begun, transfer))
            begun = []
        else:
            chains.append((transfer,))
    return chains, tuple(begun)
