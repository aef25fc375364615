"""Deadlines always: no call without one, none begun that cannot be answered in time."""

from __future__ import annotations

from common.clock import Clock
from common.errors import DeadlineExceededError, FieldInvalidError, Outcome
from common.mesh.incoming import IncomingCall
from common.mesh.outgoing import OutgoingCall


class IncomingDeadline:
    """Refuses calls without a deadline or without time; keeps a reserve to answer in."""

    def __init__(self, clock: Clock, reserve_seconds: float) -> None:
        self._clock = clock
        self._reserve = reserve_seconds

    def before(self, call: IncomingCall) -> None:
        """Refuse what cannot make it; shave the reserve off what its own calls may take."""
        if call.deadline_at is None:
            raise FieldInvalidError(field="grpc-timeout", rule="every call has a deadline")
        work_until = call.deadline_at - self._reserve
        if work_until <= self._clock.monotonic():
            raise DeadlineExceededError(outcome=Outcome.NOT_EXECUTED)
        call.work_until = work_until

    def after(self, call: IncomingCall, error: BaseException | None) -> None:
        """Nothing to do: the way that a call came by stops it when its time is over."""


class OutgoingDeadline:
    """Gives each call the earlier of its own deadline and that of the call it is made for."""

    def __init__(self, clock: Clock, default_seconds: float) -> None:
        self._clock = clock
        self._default = default_seconds

    def before(self, call: OutgoingCall) -> None:
        """Choose the deadline; refuse a call whose time is over before it begins."""
        inherited = call.context.deadline_at
        now = self._clock.monotonic()
        if call.deadline_at is None:
            call.deadline_at = now + self._default if inherited is None else inherited
        elif inherited is not None and inherited < call.deadline_at:
            call.deadline_at = inherited
        if call.deadline_at <= now:
            raise DeadlineExceededError(outcome=Outcome.NOT_EXECUTED)

    def after(self, call: OutgoingCall, error: BaseException | None) -> None:
        """Nothing to do."""
