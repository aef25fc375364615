"""The registered trade types: codes that stay for ever, so later ones are only added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TradeType:
    """What makes one type of trade differ from the others."""

    code: str
    """How contracts and rows name it."""
    has_fee: bool
    """The merchant pays a fee on it."""
    may_be_zero: bool
    """An order for nothing is allowed, and completes at once."""
    needs_user: bool
    """It is somebody's account that it concerns."""


_TYPES: Final = (
    TradeType("purchase", has_fee=True, may_be_zero=True, needs_user=False),
    TradeType("recharge", has_fee=False, may_be_zero=False, needs_user=True),
)

TRADE_TYPES: Final[Mapping[str, TradeType]] = {one.code: one for one in _TYPES}
"""All types, by code."""

TYPE_DEFAULT: Final = "purchase"
"""What an order is that names no type."""
