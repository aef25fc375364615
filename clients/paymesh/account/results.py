"""What the ledger answers, and how a call of it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from paymesh.account.v1 import Account, Entry, TransferResult, TransferStatus
from paymesh.mesh.errors import NOT_EXECUTED, Failure


@dataclass(frozen=True, slots=True)
class TransferOutcome:
    """What became of one transfer. A refusal is an answer like any other."""

    transfer_id: str
    status: str
    """BOOKED, REFUSED (the id is burned: a repeat is refused for ever) or INVALID (nothing is kept
    under the id)."""
    reason: str = ""
    """When not booked: a name of `paymesh.error.v1.ErrorReason`, without its prefix."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """When not booked: what goes with the reason, `account_id` say."""
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
    def is_booked(self) -> bool:
        """Whether it was booked, now or before."""
        return self.status == "BOOKED"

    def require(self) -> TransferOutcome:
        """Return this when booked; raises TransferRefusedError otherwise."""
        if not self.is_booked:
            raise TransferRefusedError(self)
        return self


@dataclass(frozen=True, slots=True)
class BalanceAt:
    """The balance of an account at an instant, in minor units."""

    balance_minor: int
    """On the account's normal side, buffered credits included."""
    debits_minor: int
    credits_minor: int
    currency_code: str


@dataclass(frozen=True, slots=True)
class Statement:
    """An account over business days, with amounts in minor units and balances on the normal side.

    For an account that grows by credits: opening + credits − debits = closing.
    """

    account: Account
    """As it is now."""
    opening_balance_minor: int
    closing_balance_minor: int
    debits_minor: int
    credits_minor: int
    entries_count: int
    entries: Sequence[Entry]
    """Oldest first."""


class LedgerError(Exception):
    """A call was not answered with results."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.reason}: {failure.message}")
        self.failure = failure

    @property
    def reason(self) -> str:
        """A name of `paymesh.error.v1.ErrorReason`, without its prefix."""
        return self.failure.reason

    @property
    def outcome(self) -> str:
        """NOT_EXECUTED, UNKNOWN or EXECUTED."""
        return self.failure.outcome


class CallRefusedError(LedgerError):
    """The ledger refused the call as a whole, and did nothing: its own words say why."""


class LedgerAwayError(LedgerError):
    """The ledger was not reached before the deadline; nothing was done."""


class OutcomeUnknownError(LedgerError):
    """No answer before the deadline, or none that can be read, and the ledger may have acted.

    Call again with the same ids: what was done is answered, not done twice.
    """


class TransferRefusedError(Exception):
    """A transfer was not booked."""

    def __init__(self, result: TransferOutcome) -> None:
        about = ", ".join(f"{key}={value}" for key, value in sorted(result.metadata.items()))
        super().__init__(f"{result.transfer_id} is {result.status}: {result.reason} ({about})")
        self.result = result


def outcome_from(message: TransferResult) -> TransferOutcome:
    """Read the contract's answer."""
    return TransferOutcome(
        transfer_id=message.transfer_id,
        status=TransferStatus.Name(message.status).removeprefix("TRANSFER_STATUS_"),
        reason=message.reason,
        metadata=dict(message.reason_metadata),
        replayed=message.replayed,
        booked_minor=message.booked_minor,
        business_date=date.fromisoformat(message.business_date) if message.business_date else None,
        booked_at=message.booked_at.ToDatetime(UTC) if message.HasField("booked_at") else None,
        redirected_to=message.redirected_to,
        is_buffered=message.is_buffered,
    )


def error_from(failure: Failure, *, is_final: bool, was_sent: bool) -> LedgerError:
    """Return the error of a call that got no answer.

    `is_final`: the ledger itself refused it. `was_sent`: an attempt before may have been executed.
    """
    if was_sent or failure.outcome != NOT_EXECUTED:
        return OutcomeUnknownError(failure)
    return CallRefusedError(failure) if is_final else LedgerAwayError(failure)
