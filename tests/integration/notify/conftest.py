"""Fixtures of the notify service's tests."""

from notify_kit import kit, new_kit, notify_url, pool, receiver

__all__ = ["kit", "new_kit", "notify_url", "pool", "receiver"]
