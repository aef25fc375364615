"""What a job is, how a run of it may end, and how often it is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from common.backoff import Backoff
from common.context import CallContext, Principal

# Two seconds, then six … an hour: an outside party's minute of trouble costs a few questions.
BACKOFF_DEFAULT: Final = Backoff(first_seconds=2, longest_seconds=3600, factor=3)


@dataclass(frozen=True, slots=True)
class NewJob:
    """Work to be done at `run_at` or soon after."""

    job_id: str
    """`job_…`, made by the caller or derived from what asks for it."""
    kind: str
    """Which handler does it: `expire_order`."""
    key: str
    """What it is about; one job per kind and key is open at a time."""
    run_at: datetime
    """When it is due (aware)."""
    principal: Principal
    """In whose name and world it runs."""
    biz_trace_id: str = ""
    """The story it belongs to."""
    payload: Mapping[str, Any] = field(default_factory=dict)
    """What the handler needs to know, as JSON; ids rather than copies, no personal datum."""
    causation_id: str = ""
    """What asked for it."""
    traceparent: str = ""
    """The span that asked for it."""


@dataclass(frozen=True, slots=True)
class Job(NewJob):
    """A job that is being run."""

    attempts: int = field(kw_only=True)
    """Which run this is: 1, 2 …; a run whose worker died counts."""
    lease: int = field(kw_only=True)
    """Fences the run: its end is noted only while no later claim was made."""
    last_error: str = field(kw_only=True)
    """Why the last run did not end it; empty for the first."""
    created_at: datetime = field(kw_only=True)
    """When it was written."""

    def call(self, caller: str = "") -> CallContext:
        """Return the circumstances in which it runs."""
        return CallContext(
            principal=self.principal,
            biz_trace_id=self.biz_trace_id,
            caller=caller,
            causation_id=self.job_id,
        )


@dataclass(frozen=True, slots=True)
class Done:
    """The job has ended."""


@dataclass(frozen=True, slots=True)
class Again:
    """The job runs again later; at the last attempt it is parked instead."""

    after_seconds: float | None = None
    """The pause; None for the growing one of the job's kind."""
    reason: str = ""
    """Why, for whoever reads the row."""
    is_fresh: bool = False
    """Attempts are counted from the beginning: this run went well, and the next is another."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The job is parked for a person."""

    reason: str


Result = Done | Again | GiveUp
JobHandler = Callable[[Job], Awaitable[Result]]
"""Runs one job, outside of any transaction, perhaps more than once: what it does must be harmless
when it is done again. An exception counts as `Again`."""


@dataclass(frozen=True, slots=True)
class JobKind:
    """How jobs of one kind are run."""

    handler: JobHandler
    backoff: Backoff = BACKOFF_DEFAULT
    """Pauses between attempts."""
    attempts_max: int | None = 12
    """Attempts before a person must look at it; None for no end."""
    run_seconds_max: float = 60.0
    """Longest a run may take; then it is cancelled, and tried again."""
    lease_seconds: float = 10.0
    """A run is taken over so long after its worker was last heard of, which renews in time."""
