"""The registry of account kinds: which side grows, who owns it, may it go below zero.

Assets and costs grow by debits, what the platform owes or earned grows by credits. A kind may go
negative only where the amount is a position of the platform's own, never where it is somebody's
money.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from services.account.domain.accounts import Side


class Owner(enum.StrEnum):
    """What kind of party owns an account of a kind."""

    USER = "USER"
    MERCHANT = "MERCHANT"
    CHANNEL = "CHANNEL"
    PLATFORM = "PLATFORM"


@dataclass(frozen=True, slots=True)
class AccountKind:
    """What all accounts of one code have in common."""

    code: str
    normal_side: Side
    owner: Owner
    purpose: str
    may_go_negative: bool = False


_CREDIT: Final = Side.CREDIT
_DEBIT: Final = Side.DEBIT

_ALL: Final = (
    AccountKind("user_available", _CREDIT, Owner.USER, "money that a user may spend"),
    AccountKind("red_packet", _CREDIT, Owner.USER, "one packet's money until grabbed"),
    AccountKind("credit", _CREDIT, Owner.USER, "drawdowns below zero, up to the credit limit"),
    AccountKind("merchant_pending", _CREDIT, Owner.MERCHANT, "claimed, not yet settled"),
    AccountKind("merchant_settled", _CREDIT, Owner.MERCHANT, "settled, may be paid out"),
    AccountKind("merchant_reserve", _CREDIT, Owner.MERCHANT, "kept back against refunds"),
    AccountKind("merchant_receivable", _DEBIT, Owner.MERCHANT, "what a merchant owes us"),
    AccountKind("channel_receivable", _DEBIT, Owner.CHANNEL, "what a channel owes us", True),
    AccountKind("channel_cost", _DEBIT, Owner.PLATFORM, "what channels charge us", True),
    AccountKind("platform_fee", _CREDIT, Owner.PLATFORM, "fees earned, less those returned", True),
    AccountKind("payment_transit", _CREDIT, Owner.PLATFORM, "received, not yet claimed"),
    AccountKind("refund_transit", _CREDIT, Owner.PLATFORM, "on its way back to payers"),
    AccountKind("payout_transit", _CREDIT, Owner.PLATFORM, "on its way out to banks"),
    AccountKind("suspense", _CREDIT, Owner.PLATFORM, "received, but not understood"),
    AccountKind("unclaimed", _CREDIT, Owner.PLATFORM, "owed to somebody whose account is shut"),
    AccountKind("coupon_cost", _DEBIT, Owner.PLATFORM, "discounts that we bear", True),
    AccountKind("in_transit", _CREDIT, Owner.PLATFORM, "between two books", True),
    AccountKind("position", _CREDIT, Owner.PLATFORM, "currency bought and sold", True),
    AccountKind("loss", _DEBIT, Owner.PLATFORM, "written off", True),
)

KINDS: Final[dict[str, AccountKind]] = {kind.code: kind for kind in _ALL}
"""Kinds by code."""

if len(KINDS) != len(_ALL):
    raise RuntimeError("an account kind is registered twice")
