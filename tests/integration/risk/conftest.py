"""Fixtures of the risk service's tests."""

from risk_kit import kit, other, pool, rules_file

__all__ = ["kit", "other", "pool", "rules_file"]
