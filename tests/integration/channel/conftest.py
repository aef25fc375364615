"""Fixtures of the channel service's tests."""

from channel_kit import callbacks, channel_url, credentials, kit, new_kit, pool, sandbox

__all__ = ["callbacks", "channel_url", "credentials", "kit", "new_kit", "pool", "sandbox"]
