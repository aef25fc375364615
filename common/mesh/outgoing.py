"""A call to another service as middleware sees it before it leaves."""

from __future__ import annotations

from typing import Any

from common.context import CallContext


class OutgoingCall:
    """One attempt of one call, whichever way it will travel."""

    __slots__ = (
        "caller",
        "context",
        "deadline_at",
        "is_local",
        "metadata",
        "path",
        "span",
        "started_at",
        "target",
    )

    def __init__(
        self,
        path: str,
        caller: str,
        target: str,
        context: CallContext,
        now: float,
        deadline_at: float | None,
        metadata: list[tuple[str, str | bytes]],
        *,
        is_local: bool,
    ) -> None:
        self.path = path
        self.caller = caller
        """The service that calls."""
        self.target = target
        """The service that is called."""
        self.context = context
        """The circumstances of the call that this one is made for."""
        self.deadline_at = deadline_at
        """Instant of the clock's `monotonic` at which the call is given up; None until the
        deadline middleware has chosen one."""
        self.metadata = metadata
        self.is_local = is_local
        self.span: Any = None
        self.started_at = now
        """Instant of the clock's `monotonic` when the attempt began."""


class OutgoingMiddleware:
    """One concern of every call that is made; a class overrides what it has a use for."""

    def before(self, call: OutgoingCall) -> None:
        """Look at a call before it leaves; raise a PaymeshError to keep it."""

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Look at a call that has ended; called only when `before` had let it pass."""
