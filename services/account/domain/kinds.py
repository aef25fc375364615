"""Kinds of account: which side grows, who owns it, may it go below zero, what it adds up to.

Assets and costs grow by debits, what the platform owes or earned grows by credits. A kind may go
negative only where the amount is a position of the platform's own, never where it is somebody's
money. The kinds there are stand in `chart/kinds.toml`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from services.account.domain.accounts import Side


class Owner(enum.StrEnum):
    """What kind of party owns an account of a kind."""

    USER = "USER"
    MERCHANT = "MERCHANT"
    """Agents too."""
    CHANNEL = "CHANNEL"
    PLATFORM = "PLATFORM"


@dataclass(frozen=True, slots=True)
class AccountKind:
    """What all accounts of one code have in common."""

    code: str
    normal_side: Side
    owner: Owner
    purpose: str
    """What the money on them is, in a few words."""
    may_go_negative: bool
    subject_code: str
    """Subject of the general ledger that they add up to."""
    is_contra: bool = False
    """Whether they grow on the other side than their subject: credit, whose drawdowns are loans."""


Kinds = Mapping[str, AccountKind]
"""Kinds by code."""
