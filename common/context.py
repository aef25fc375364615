"""What travels with every call besides its message: who acts, which story, how long.

Held in a context variable, so that logs, rows, events and further calls find it without it being
threaded through every signature. Flows that store it take it as an argument.
"""

from __future__ import annotations

import enum
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Final


class Mode(enum.StrEnum):
    """Which world a row, event, queue or key belongs to."""

    LIVE = "LIVE"
    TEST = "TEST"
    SHADOW = "SHADOW"


class ActorType(enum.StrEnum):
    """What kind of party acts."""

    MERCHANT = "MERCHANT"
    USER = "USER"
    OPERATOR = "OPERATOR"
    SERVICE = "SERVICE"
    CHANNEL = "CHANNEL"


TENANT_DEFAULT: Final = "default"
LANE_DEFAULT: Final = "stable"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts, for whom, and in which world (`paymesh.type.v1.Principal`)."""

    tenant_id: str = TENANT_DEFAULT
    mode: Mode = Mode.LIVE
    merchant_id: str = ""
    actor_type: ActorType = ActorType.SERVICE
    actor_id: str = ""
    on_behalf_of: str = ""
    roles: tuple[str, ...] = ()

    @property
    def actor(self) -> str:
        """The actor as rows keep it: `MERCHANT:key_01…`."""
        return f"{self.actor_type}:{self.actor_id}"


@dataclass(frozen=True, slots=True)
class CallContext:
    """The circumstances of one call."""

    principal: Principal = field(default_factory=Principal)
    biz_trace_id: str = ""
    caller: str = ""
    """Name of the calling service; empty for a caller outside the mesh."""
    lane: str = LANE_DEFAULT
    deadline_at: float | None = None
    """Instant of `Clock.monotonic` when the answer is worth nothing any more."""
    causation_id: str = ""


_current: ContextVar[CallContext] = ContextVar("paymesh_call")
_EMPTY: Final = CallContext()


def current() -> CallContext:
    """Return the circumstances of the call being served; an empty one outside of any call."""
    return _current.get(_EMPTY)


class bound:  # noqa: N801 - reads as a verb: `with bound(call):`
    """Run a block under other circumstances."""

    def __init__(self, call: CallContext) -> None:
        self._call = call

    def __enter__(self) -> CallContext:
        self._token = _current.set(self._call)
        return self._call

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)


def with_biz_trace_id(biz_trace_id: str) -> CallContext:
    """Return the current circumstances under another story."""
    return replace(current(), biz_trace_id=biz_trace_id)
