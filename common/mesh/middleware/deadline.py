"""Deadlines always: no call without one, none begun that cannot be answered in time."""

from __future__ import annotations

from common.errors import DeadlineExceededError, FieldInvalidError, Outcome
from common.mesh.incoming import IncomingCall, IncomingMiddleware
from common.mesh.outgoing import OutgoingCall, OutgoingMiddleware


class IncomingDeadline(IncomingMiddleware):
    """Refuses calls without a deadline or without time; keeps a reserve to answer in."""

    def __init__(self, reserve_seconds: float) -> None:
        self._reserve = reserve_seconds

    def before(self, call: IncomingCall) -> None:
        """Refuse what cannot make it; shave the reserve off what its own calls may take."""
        if call.deadline_at is None:
            raise FieldInvalidError(field="grpc-timeout", rule="every call has a deadline")
        work_until = call.deadline_at - self._reserve
        if work_until <= call.started_at:
            raise DeadlineExceededError(outcome=Outcome.NOT_EXECUTED)
        call.work_until = work_until


class OutgoingDeadline(OutgoingMiddleware):
    """Gives each call the earlier of its own deadline and that of the call it is made for."""

    def __init__(self, default_seconds: float) -> None:
        self._default = default_seconds

    def before(self, call: OutgoingCall) -> None:
        """Choose the deadline; refuse a call whose time is over before it begins."""
        inherited = call.context.deadline_at
        now = call.started_at
        if call.deadline_at is None:
            call.deadline_at = now + self._default if inherited is None else inherited
        elif inherited is not None and inherited < call.deadline_at:
            call.deadline_at = inherited
        if call.deadline_at <= now:
            raise DeadlineExceededError(outcome=Outcome.NOT_EXECUTED)
