"""What settlement sets aside for a person."""

from __future__ import annotations


class ClearingMismatchError(Exception):
    """An event does not add up, or differs from what was cleared; it is parked, never guessed."""


class PaymentNotClearedError(Exception):
    """A refund came before its payment; it is tried again later."""
