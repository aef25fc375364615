"""Parties and their rules: states, card numbers, keys, and which accounts each party has."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime
from typing import Final


class Status(enum.StrEnum):
    """Whether a party may do business."""

    OPENING = "OPENING"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    CLOSED = "CLOSED"


MOVES: Final = frozenset(
    {
        (Status.OPENING, Status.ACTIVE),
        (Status.ACTIVE, Status.SUSPENDED),
        (Status.SUSPENDED, Status.ACTIVE),
        (Status.ACTIVE, Status.CLOSED),
        (Status.SUSPENDED, Status.CLOSED),
    }
)
"""Every change of status that there is; OPENING → ACTIVE only when the accounts are open."""

MERCHANT_MODES: Final = ("LIVE", "TEST")
"""The worlds in which a merchant has accounts, as its keys open one or the other."""

MERCHANT_ACCOUNTS: Final = ("merchant_pending", "merchant_settled")
USER_ACCOUNTS: Final = ("user_available",)
"""Account kinds of docs/money-flows.md, one account each per currency."""


def may_move(before: Status, after: Status) -> bool:
    """Say whether an operator may change a status so."""
    return before is not Status.OPENING and (before, after) in MOVES


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant."""

    id: str
    tenant_id: str
    mode: str
    """The world of whoever registered it; it trades in all of MERCHANT_MODES."""
    merchant_no: str
    name: str
    status: Status
    currency_codes: tuple[str, ...]
    request_id: str
    actor: str
    biz_trace_id: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class MerchantKey:
    """A key that signs a merchant's requests."""

    id: str
    tenant_id: str
    merchant_id: str
    mode: str
    """The world that it opens."""
    public_key: bytes
    request_id: str
    actor: str
    revoked_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class User:
    """A user of a merchant."""

    id: str
    tenant_id: str
    mode: str
    merchant_id: str
    merchant_user_no: str
    status: Status
    currency_codes: tuple[str, ...]
    request_id: str
    actor: str
    biz_trace_id: str
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class CardElements:
    """What a card is proven by; never logged."""

    number: str
    holder_name: str
    identity_number: str
    phone: str

    def __repr__(self) -> str:
        """Hide everything: a log line may hold any argument."""
        return "CardElements(…)"


@dataclass(frozen=True, slots=True, repr=False)
class Card:
    """A bound card."""

    id: str
    tenant_id: str
    mode: str
    merchant_id: str
    user_id: str
    last_four: str
    bank_code: str
    key_id: str
    """The master key that its elements are sealed under."""
    sealed: bytes
    number_hash: bytes
    elements_hash: bytes
    request_id: str
    actor: str
    biz_trace_id: str
    unbound_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime

    def __repr__(self) -> str:
        """Name it, and nothing of it."""
        return f"Card({self.id})"


@dataclass(frozen=True, slots=True)
class Opening:
    """Accounts to be opened for one party in one world."""

    tenant_id: str
    mode: str
    owner_id: str
    merchant_id: str
    kinds: tuple[str, ...]
    currency_codes: tuple[str, ...]

    @property
    def weight(self) -> int:
        """How many accounts."""
        return len(self.kinds) * len(self.currency_codes)


def openings_of_merchant(merchant: Merchant) -> list[Opening]:
    """Return the accounts of a merchant, of each world."""
    return [
        Opening(
            merchant.tenant_id,
            mode,
            merchant.id,
            merchant.id,
            MERCHANT_ACCOUNTS,
            merchant.currency_codes,
        )
        for mode in MERCHANT_MODES
    ]


def opening_of_user(user: User) -> Opening:
    """Return the accounts of a user."""
    return Opening(
        user.tenant_id, user.mode, user.id, user.merchant_id, USER_ACCOUNTS, user.currency_codes
    )


def is_card_number(number: str) -> bool:
    """Say whether a number of 12 to 19 digits has the right check digit (ISO/IEC 7812, Luhn)."""
    if not (12 <= len(number) <= 19 and number.isascii() and number.isdigit()):
        return False
    total = 0
    for place, letter in enumerate(reversed(number)):
        digit = int(letter)
        if place % 2:
            digit = digit * 2 - 9 if digit > 4 else digit * 2
        total += digit
    return total % 10 == 0


_P: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_MINUS_1: Final = pow(2, (_P - 1) // 4, _P)


def is_public_key(key: bytes) -> bool:
    """Say whether 32 bytes are an Ed25519 public key (RFC 8032, 5.1.3).

    The bytes must name a point of the curve in its one canonical form, and not one of the eight
    points of small order, under which a signature proves nothing.
    """
    if len(key) != 32:
        return False
    value = int.from_bytes(key, "little")
    sign, y = value >> 255, value & ((1 << 255) - 1)
    if y >= _P:
        return False
    x = _find_x(y)
    if x is None or (x == 0 and sign):
        return False
    return not _has_small_order(x, y)


def _find_x(y: int) -> int | None:
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_1 % _P
    return None if (x * x - square) % _P else x


def _has_small_order(x: int, y: int) -> bool:
    """Say whether eight times the point is the neutral one."""
    for _ in range(3):
        product = _D * x * x * y * y % _P
        x, y = (
            2 * x * y * pow(1 + product, _P - 2, _P) % _P,
            (y * y + x * x) * pow(1 - product, _P - 2, _P) % _P,
        )
    return (x, y) == (0, 1)
