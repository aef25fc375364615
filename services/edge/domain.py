"""What the edge decides by itself: who holds a key, and how fast a merchant may come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """A merchant's key as the door needs it."""

    key_id: str
    merchant_id: str
    mode: str
    """The world that the key opens."""
    public_key: bytes
    """Ed25519, 32 bytes."""
    is_revoked: bool
    may_trade: bool
    """Whether its merchant may begin anything."""
    ttl_seconds: float
    """How long this may be remembered."""


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """What a channel wants to hear."""

    status: int
    content_type: str
    body: bytes


class TokenBucket:
    """Lets `rate` through per second, and `burst` at once after a quiet time."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float, now_seconds: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at = now_seconds

    def take(self, now_seconds: float) -> float:
        """Take one token; return 0 when there was one, else the seconds until there is."""
        self._tokens = min(self._burst, self._tokens + (now_seconds - self._at) * self._rate)
        self._at = now_seconds
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate
