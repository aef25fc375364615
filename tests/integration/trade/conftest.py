"""Fixtures of the trade service's tests."""

from trade_kit import hosted, trade

__all__ = ["hosted", "trade"]
