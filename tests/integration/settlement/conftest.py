"""Fixtures of the settlement service's tests."""

from settlement_kit import hosted, settlement

__all__ = ["hosted", "settlement"]
