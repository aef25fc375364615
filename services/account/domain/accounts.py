"""Accounts: whose money is where, as four sums that only ever grow or return.

Vocabulary and sums follow TigerBeetle's reference (Account): posted and pending, debit and credit.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from common.ids import BOOK_DEFAULT, derive_timeless

PLATFORM_OWNER: Final = "platform"
"""Owner of the platform's own accounts."""

SUM_MINOR_MAX: Final = 9 * 10**18
"""Largest sum of one side of an account, in minor units: the most that a `bigint` column holds,
rounded down. That is 9,000 times the largest amount of one transfer."""

BUFFERED_SUM_MINOR_MAX: Final = SUM_MINOR_MAX // 2
"""The same for a buffered account, in minor units. Its writers see what is posted, not what others
append: the other half is room for what may gather between two drains."""

UNCLAIMED: Final = "unclaimed"
"""Kind of the accounts that take what others cannot."""


class Side(enum.StrEnum):
    """One side of an account."""

    DEBIT = "DEBIT"
    CREDIT = "CREDIT"


class AccountStatus(enum.StrEnum):
    """What an account takes; `statuses.RULES` has the details."""

    NORMAL = "NORMAL"
    DEBIT_FROZEN = "DEBIT_FROZEN"
    CREDIT_FROZEN = "CREDIT_FROZEN"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True)
class AccountSpec:
    """An account to be opened."""

    id: str
    owner_id: str
    kind: str
    currency_code: str
    credit_limit_minor: int = 0
    """How far below zero the available amount may go, in minor units."""
    merchant_id: str = ""
    """The merchant that the owner belongs to; empty for the platform's own accounts."""
    tenant_id: str = "default"
    mode: str = "LIVE"
    is_buffered: bool = False
    """Whether single credits are buffered (see `obstacle_to_buffering`)."""


@dataclass(slots=True)
class AccountState:
    """What has to be known of an account to book on it. Sums are in minor units of its currency.

    Never changed; not declared frozen because a flush makes thousands (see `transfers`).
    """

    id: str
    tenant_id: str
    mode: str
    currency_code: str
    normal_side: str
    status: str
    may_go_negative: bool
    credit_limit_minor: int
    court_frozen_minor: int
    """Frozen by a court: no debit and no post of an older hold may touch it."""
    debits_posted_minor: int
    credits_posted_minor: int
    debits_pending_minor: int
    credits_pending_minor: int
    version: int
    is_buffered: bool
    """Whether single credits are appended to a buffer first, and posted when that is drained."""

    @property
    def credits_minor_max(self) -> int:
        """The largest sum of credits, posted and pending, that it takes."""
        return BUFFERED_SUM_MINOR_MAX if self.is_buffered else SUM_MINOR_MAX


@dataclass(slots=True)
class Account(AccountState):
    """An account as it stands at one version."""

    owner_id: str
    merchant_id: str
    kind: str
    created_at: datetime
    updated_at: datetime
    buffered_minor: int = 0
    """What waits in the buffer: neither posted nor available yet. Not read under locks."""

    @property
    def balance_minor(self) -> int:
        """Posted balance on the normal side."""
        difference = self.credits_posted_minor - self.debits_posted_minor
        return difference if self.normal_side == Side.CREDIT else -difference

    @property
    def frozen_minor(self) -> int:
        """What open holds keep back."""
        if self.normal_side == Side.CREDIT:
            return self.debits_pending_minor
        return self.credits_pending_minor

    @property
    def available_minor(self) -> int:
        """What may be moved out now, before any credit limit."""
        return self.balance_minor - self.frozen_minor - self.court_frozen_minor

    @property
    def is_empty(self) -> bool:
        """Whether nothing is on it and nothing is held on either side, so that it may close."""
        return not (
            self.balance_minor
            or self.debits_pending_minor
            or self.credits_pending_minor
            or self.buffered_minor
        )


def platform_account_id(
    kind: str, currency_code: str, *, tenant_id: str, mode: str, book: int = BOOK_DEFAULT
) -> str:
    """Return the id of an account of the platform itself.

    Callers derive the same with `paymesh.account.account_id_for`; a test holds the two together.
    """
    text = "\x1f".join((PLATFORM_OWNER, kind, currency_code, tenant_id, mode))
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:9], "big")
    # A timeless id of the book lends its head; the letters behind are the hash's.
    head = derive_timeless("acc", book=book)[:16]
    letters = []
    for _ in range(14):
        letters.append("0123456789abcdefghjkmnpqrstvwxyz"[value & 31])
        value >>= 5
    return head + "".join(reversed(letters))


def obstacle_to_buffering(kind: str, normal_side: str) -> str | None:
    """Say why credits of an account may not be buffered, as a rule that it breaks; or None."""
    if normal_side != Side.CREDIT:
        return "is for accounts that grow by credits"
    if kind == UNCLAIMED:
        # Whoever finds less there than was put there books the rest as a loss.
        return "is not for what may be asked back at once"
    return None


def first_account_difference(spec: AccountSpec, account: Account) -> str | None:
    """Return the first property in which an open account differs from what is asked, or None."""
    for name in ("kind", "currency_code", "owner_id", "merchant_id", "tenant_id", "mode"):
        if getattr(spec, name) != getattr(account, name):
            return name
    return None
