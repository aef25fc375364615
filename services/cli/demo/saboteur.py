"""Carries out a plan of faults on a running platform, and sees to it that all comes back.

Incidents come at their places of the replay, mostly one after the other; the shop goes on buying
under each. Only private servers are ever touched.
"""

from __future__ import annotations

import asyncio
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, cast

from paymesh.sandbox.v1 import (
    FaultKind,
    FaultRule,
    GetFaultPlanRequest,
    PutFaultPlanRequest,
    SandboxServiceStub,
)

from common.embedded.cluster import ServerName
from services.cli.demo.faults import EVERY_SERVICE, SERVERS, FaultPlan, Incident, What
from services.cli.demo.persistence import persist
from services.cli.deployment import Deployment
from services.cli.operator import Operator

RECOVERY_SECONDS: Final = 120.0
"""A process that is not back after this long does not come back; in a restart of all of them, each
has as long."""

_PREFIX: Final = "FAULT_KIND_"


class NotRecoveredError(Exception):
    """A process or server did not come back; the message says which and why."""


class Saboteur:
    """Makes the planned trouble, and counts what it did."""

    def __init__(
        self,
        deployment: Deployment,
        operator: Operator,
        plan: FaultPlan,
        say: Callable[[str], None],
    ) -> None:
        self._deployment = deployment
        self._sandbox = operator.stub(SandboxServiceStub, "sandbox")
        self._plan = plan
        self._say = say
        self._ahead = list(plan.incidents)
        self._under_way: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.done: dict[What, Counter[str]] = {what: Counter() for what in What}
        """How often what befell whom."""

    async def begin(self) -> None:
        """Tell the outside parties how to misbehave from now on."""
        if self._plan.rules:
            request = PutFaultPlanRequest(seed=self._plan.seed, rules=_rules(self._plan))
            await persist(lambda: self._sandbox.PutFaultPlan(request, timeout=5.0))

    async def reach(self, place: int) -> None:
        """Let everything befall that comes at a place of the replay, or should have before."""
        while self._ahead and self._ahead[0].place <= place:
            incident = self._ahead.pop(0)
            if not incident.joins:
                await self._wait()
            self._say(incident.words)
            task = asyncio.create_task(self._carry_out(incident))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            # It has to have begun: the next purchase is to meet it.
            await asyncio.sleep(0)

    async def finish(self) -> None:
        """Wait until everything is back.

        Raises:
            NotRecoveredError: something is not.
        """
        await self._wait()
        if self._failed.done():
            raise NotRecoveredError(repr(self._failed.result()))

    async def wait_failed(self) -> str:
        """Wait until something did not come back; returns what happened."""
        return repr(await asyncio.shield(self._failed))

    async def close(self) -> None:
        """Stop making trouble; what is paused goes on."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    async def count_hits(self) -> dict[str, int]:
        """Return how often the parties misbehaved, by kind of fault, each kind named."""
        hits = dict.fromkeys(fault_kinds(), 0)
        if self._plan.rules:
            answer = await persist(
                lambda: self._sandbox.GetFaultPlan(GetFaultPlanRequest(), timeout=5.0)
            )
            for count in answer.counts:
                hits[FaultKind.Name(count.kind).removeprefix(_PREFIX)] += count.hits
        return hits

    async def _wait(self) -> None:
        if self._under_way:
            await asyncio.wait(tuple(self._under_way))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._failed.done():
            self._failed.set_result(error)

    async def _carry_out(self, incident: Incident) -> None:
        async with self._locks[incident.target]:
            if incident.target == EVERY_SERVICE:
                for process in self._deployment.topology.processes:
                    with _recovering(incident, process):
                        async with asyncio.timeout(RECOVERY_SECONDS):
                            await self._end_and_wait(process, signal.SIGTERM)
            else:
                with _recovering(incident, incident.target):
                    async with asyncio.timeout(RECOVERY_SECONDS + incident.seconds):
                        await self._befall(incident)
        self.done[incident.what][incident.target] += 1

    async def _befall(self, incident: Incident) -> None:
        if incident.target in SERVERS:
            await self._befall_server(cast("ServerName", incident.target), incident)
            return
        process = self._deployment.topology.process_of(incident.target)
        if incident.what is What.PAUSE:
            await self._pause_process(process, incident.seconds)
        else:
            is_kill = incident.what is What.KILL
            await self._end_and_wait(process, signal.SIGKILL if is_kill else signal.SIGTERM)

    async def _befall_server(self, server: ServerName, incident: Incident) -> None:
        servers = self._deployment.servers
        if incident.what is What.PAUSE:
            await servers.pause(server)
            try:
                await asyncio.sleep(incident.seconds)
            finally:
                await servers.resume(server)
            return
        await servers.kill(server)
        await asyncio.sleep(incident.seconds)
        await servers.restart(server)
        # Services that could not start without it are no crash loop.
        self._deployment.supervisor.forgive()

    async def _pause_process(self, process: str, seconds: float) -> None:
        supervisor = self._deployment.supervisor
        await supervisor.wait_ready(process)
        await supervisor.kill(process, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            await supervisor.kill(process, signal.SIGCONT)

    async def _end_and_wait(self, process: str, number: signal.Signals) -> None:
        supervisor = self._deployment.supervisor
        await supervisor.wait_ready(process)
        restarts = supervisor.restarts(process)
        await supervisor.kill(process, number)
        await supervisor.wait_restarted(process, restarts)


@contextmanager
def _recovering(incident: Incident, name: str) -> Iterator[None]:
    """Say of what did not come back in time what it is, and what had befallen it."""
    try:
        yield
    except TimeoutError:
        words = f"{name} is not back {RECOVERY_SECONDS:.0f} s after: {incident.words}"
        raise NotRecoveredError(words) from None


def fault_kinds() -> list[str]:
    """Return the names of all kinds of fault that the outside parties know."""
    names: Mapping[str, int] = dict(FaultKind.items())
    return [name.removeprefix(_PREFIX) for name, number in names.items() if number]


def _rules(plan: FaultPlan) -> list[FaultRule]:
    return [
        FaultRule(
            rule_id=rule.rule_id,
            kind=FaultKind.Value(_PREFIX + rule.kind),
            party=rule.party,
            verb=rule.verb,
            amount_minor=rule.amount_minor,
            rate_ppm=rule.rate_ppm,
            delay_ms=rule.delay_ms,
            hits_max=rule.hits_max,
        )
        for rule in plan.rules
    ]
