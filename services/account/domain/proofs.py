"""What a proof compares, and how it says what does not fit. Pure: amounts in, words out.

Per world, subject and currency: what outer accounts have posted + what waits in buffers = the
general ledger's balance + what is in flight. Amounts arrive as debits less credits, and are turned
to the subject's normal side.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from services.account.domain.accounts import Side

UNFIT_MAX: Final = 100
IN_FLIGHT_SHOWN_MAX: Final = 100
FINDINGS_TOLD_MAX: Final = 20


class Occasion(enum.StrEnum):
    """Why a proof is made."""

    CONTINUOUS = "CONTINUOUS"
    DAY_CUT = "DAY_CUT"
    ON_DEMAND = "ON_DEMAND"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One line's place: whose world, which currency, which subject."""

    tenant_id: str
    mode: str
    currency_code: str
    subject_code: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a proof; balances on the subject's normal side, in minor units."""

    key: Key
    outer_minor: int
    buffered_minor: int
    inner_minor: int
    in_flight_minor: int

    @property
    def difference_minor(self) -> int:
        """Outer + buffered − inner − in flight: 0 when the line holds."""
        return self.outer_minor + self.buffered_minor - self.inner_minor - self.in_flight_minor


@dataclass(frozen=True, slots=True)
class Terms:
    """What a line is made of, as debits less credits."""

    key: Key
    normal_side: str
    outer_minor: int
    buffered_minor: int
    inner_minor: int
    in_flight_minor: int


@dataclass(frozen=True, slots=True)
class DayDifference:
    """A subject whose sums of one day differ; all as debits less credits."""

    book: int
    business_date: date
    key: Key
    is_controlled: bool
    """Whether outer accounts add up to the subject."""
    moved_minor: int
    """By the day's transfers."""
    entered_minor: int
    """By the entries and buffered credits of the day."""
    due_minor: int
    """By those of the day's transfers whose vouchers must be there."""
    told_minor: int
    """By the lines of the day's vouchers."""
    kept_minor: int
    """By the day's sums of the general ledger."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """The first transfer or voucher of a day and subject that does not fit; debits less credits."""

    transfer_id: str
    account_id: str
    voucher_id: str
    has_transfer: bool
    has_entry: bool
    is_due: bool
    """Whether its voucher must be there: it is not in flight."""
    moved_minor: int
    entered_minor: int
    told_minor: int


@dataclass(frozen=True, slots=True)
class UnfitAccount:
    """An account whose posted sums are not the sums of its entries, in minor units."""

    account_id: str
    transfer_id: str
    """Of the first entry that carries another sum than the entries up to it add up to, or of the
    last entry."""
    debits_posted_minor: int
    credits_posted_minor: int
    entry_debits_minor: int
    entry_credits_minor: int


@dataclass(frozen=True, slots=True)
class UnfitEntry:
    """The first entry that does not fit, for people."""

    transfer_id: str
    account_id: str
    voucher_id: str
    subject_code: str
    finding: str
    business_date: date | None = None
    """The day on which it does not fit; None where it cannot be told."""


@dataclass(frozen=True, slots=True)
class Proof:
    """That the outer accounts add up to the general ledger, in one snapshot."""

    id: str
    proved_at: datetime
    occasion: Occasion
    business_date: date
    lines: tuple[Line, ...]
    in_flight_count: int
    in_flight_ids: tuple[str, ...]
    unfit: tuple[UnfitEntry, ...]
    holds: bool

    @property
    def findings(self) -> list[str]:
        """What does not fit, in words with ids and amounts."""
        words = [unfit.finding for unfit in self.unfit]
        return words or [words_of_line(line) for line in self.lines if line.difference_minor]


def lines_of(terms: Iterable[Terms]) -> tuple[Line, ...]:
    """Turn terms to the normal side of their subjects, in the order of their keys."""
    lines = []
    for one in terms:
        sign = 1 if one.normal_side == Side.DEBIT else -1
        lines.append(
            Line(
                one.key,
                sign * one.outer_minor,
                sign * one.buffered_minor,
                sign * one.inner_minor,
                sign * one.in_flight_minor,
            )
        )
    return tuple(sorted(lines, key=lambda line: line.key))


def words_of_line(line: Line) -> str:
    """Say by how much a line does not hold."""
    key = line.key
    return (
        f"{key.tenant_id} {key.mode} {key.subject_code} {key.currency_code}: accounts"
        f" {line.outer_minor} + buffered {line.buffered_minor} − general ledger"
        f" {line.inner_minor} − in flight {line.in_flight_minor} = {line.difference_minor}"
    )


def first_days(differences: Sequence[DayDifference]) -> dict[Key, DayDifference]:
    """Return the first day that differs of each world, subject and currency."""
    first: dict[Key, DayDifference] = {}
    for one in sorted(differences, key=lambda d: (d.business_date, d.book)):
        first.setdefault(one.key, one)
    return first


def explain_misfit(difference: DayDifference, misfit: Misfit) -> UnfitEntry:
    """Say in words why a transfer, entry or voucher does not fit."""
    return UnfitEntry(
        misfit.transfer_id if misfit.transfer_id.startswith("tfr_") else "",
        misfit.account_id,
        misfit.voucher_id,
        difference.key.subject_code,
        f"{_place(difference)}: {_why(misfit)}",
        difference.business_date,
    )


def explain_unbalanced(difference: DayDifference, voucher_id: str) -> UnfitEntry:
    """Say that a voucher's lines do not add up to what it is about."""
    words = "its lines do not add up to its total on both sides"
    return UnfitEntry(
        "",
        "",
        voucher_id,
        difference.key.subject_code,
        f"{_place(difference)}: voucher {voucher_id}: {words}",
        difference.business_date,
    )


def explain_sums(difference: DayDifference) -> UnfitEntry:
    """Say that the sums of a day differ, where no single entry could be found."""
    return UnfitEntry(
        "",
        "",
        "",
        difference.key.subject_code,
        f"{_place(difference)}: the day's sums keep {_side(difference.kept_minor)}, its vouchers"
        f" tell {_side(difference.told_minor)}",
        difference.business_date,
    )


def explain_account(key: Key, account: UnfitAccount) -> UnfitEntry:
    """Say that an account is not the sum of its entries."""
    return UnfitEntry(
        account.transfer_id,
        account.account_id,
        "",
        key.subject_code,
        f"{key.subject_code} {key.currency_code}: account {account.account_id} has"
        f" {account.debits_posted_minor} debits and {account.credits_posted_minor} credits posted,"
        f" its entries add up to {account.entry_debits_minor} and {account.entry_credits_minor}",
    )


def explain_line(line: Line) -> UnfitEntry:
    """Say that a line does not hold, where no single entry could be found."""
    return UnfitEntry("", "", "", line.key.subject_code, words_of_line(line))


def _place(difference: DayDifference) -> str:
    key = difference.key
    return f"{difference.business_date} {key.subject_code} {key.currency_code}"


def _why(misfit: Misfit) -> str:
    moved, entered, told = misfit.moved_minor, misfit.entered_minor, misfit.told_minor
    name = misfit.transfer_id
    if not misfit.has_transfer and misfit.has_entry:
        return (
            f"an entry of {_side(entered)} on {misfit.account_id} names {name}, which is not booked"
        )
    if not misfit.has_transfer:
        return f"voucher {misfit.voucher_id} tells {_side(told)}, and no transfer moved it"
    if moved != entered and not misfit.has_entry:
        return f"transfer {name} moved {_side(moved)} and has no entry"
    if moved != entered:
        return f"transfer {name} moved {_side(moved)}, its entries say {_side(entered)}"
    if not misfit.is_due:
        return f"transfer {name} is in flight, and voucher {misfit.voucher_id} tells of it already"
    if not misfit.voucher_id:
        return f"transfer {name} moved {_side(moved)} and no voucher tells of it on this subject"
    return f"transfer {name} moved {_side(moved)}, voucher {misfit.voucher_id} tells {_side(told)}"


def _side(amount_minor: int) -> str:
    """An amount with the side that it stands on."""
    if amount_minor == 0:
        return "0"
    return f"{abs(amount_minor)} {'debit' if amount_minor > 0 else 'credit'}"
