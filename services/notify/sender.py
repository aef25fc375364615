"""Sends what is due: claims in batches, many attempts at a time, each address by itself.

New deliveries wake it after their commit; due retries, and what a crashed process left, are found
by looking every second. A claim is a lease, renewed while it is worked on: whoever dies in between
leaves a delivery that is sent again, under the same `webhook-id`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from common.backoff import Backoff
from common.clock import Clock
from common.errors import Outcome as CallOutcome
from common.errors import PaymeshError
from common.sealing import Sealer
from common.telemetry import metrics
from services.notify.config import NotifySettings
from services.notify.domain.breaker import Breaker
from services.notify.domain.deliveries import Answer, Claim, Outcome, conclude
from services.notify.flows.create_endpoint import seal_context
from services.notify.signature import headers_of
from services.notify.store.deliveries import DeliveryStore
from services.notify.transport import Courier

SaveOutcome = Callable[[Outcome], Awaitable[bool]]

_log = logging.getLogger(__name__)
_SENT = metrics.counter("paymesh.webhooks.attempts", "Attempts at webhooks, by their end")

# Claimed beyond what is under way, so that an address that answers fast never waits for a claim.
_AHEAD: Final = 2
# What a stopping process gives its attempts; the rest is sent again by another.
_STOP_SECONDS: Final = 5.0
# Opened secrets are kept for the busiest addresses; opening one costs 30 µs.
_SECRETS_MAX: Final = 10_000
_SAVE_BACKOFF: Final = Backoff(first_seconds=0.2, longest_seconds=2)
# An outcome that cannot be written for so long is given up, and the webhook sent again: as long as
# a database takes to come back, even in the worst case of a failover.
_SAVE_SECONDS: Final = 60.0
# Leases are renewed often enough that one renewal may fail.
_RENEWALS_PER_LEASE: Final = 3


@dataclass(slots=True)
class _Lane:
    """One address in this process."""

    places: asyncio.Semaphore
    breaker: Breaker = field(default_factory=Breaker)
    held: int = 0
    """Claimed here and not ended."""
    in_flight: int = 0
    is_backlogged: bool = False
    """More is due than it had room for."""

    def admits(self, now: float) -> bool:
        return self.in_flight < self.breaker.room(now, self.in_flight + 1)


@dataclass(slots=True, eq=False)
class _Held:
    """A claim of this process."""

    claim: Claim
    until: datetime
    """As its row says; whoever takes it after that says otherwise."""
    send_until: float
    """The same on the monotonic clock: no attempt begins later."""

    @property
    def key(self) -> tuple[str, datetime]:
        """What says that the row is still ours."""
        return (self.claim.delivery_id, self.until)


class Sender:
    """The sending side of one process; `run` until cancelled.

    Args:
        chance: a number from 0 to 1 for the jitter of the schedule.
        save: writes an outcome, together with others.
    """

    def __init__(
        self,
        store: DeliveryStore,
        courier: Courier,
        save: SaveOutcome,
        sealer: Sealer,
        clock: Clock,
        settings: NotifySettings,
        chance: Callable[[], float],
    ) -> None:
        self._store = store
        self._courier = courier
        self._save = save
        self._sealer = sealer
        self._clock = clock
        self._settings = settings
        self._chance = chance
        self._awake = asyncio.Event()
        self._places = asyncio.Semaphore(settings.in_flight_max)
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: set[_Held] = set()
        self._unsent: list[_Held] = []
        self._secrets: dict[str, bytes] = {}
        self._is_backlogged = False
        self._is_stopping = False

    def wake(self) -> None:
        """Look for what is due now: something new was written."""
        self._awake.set()

    async def run(self) -> None:
        """Send until cancelled; while the database is away this waits."""
        self._is_stopping = False
        backoff, failures = Backoff(), 0
        renewing = asyncio.create_task(self._renew(), name="webhook leases")
        try:
            while True:
                self._awake.clear()
                try:
                    await self._release_unsent()
                    await self._claim()
                except Exception as error:  # noqa: BLE001 - what is due waits in the table
                    failures += 1
                    _log.warning("webhooks wait: %r", error)
                    await asyncio.sleep(backoff.pause(failures))
                    continue
                failures = 0
                await self._doze()
        finally:
            await self._stop()
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _renew(self) -> None:
        """Keep the leases of what takes long; most attempts are over before the first time."""
        lease = self._settings.lease_seconds
        pause = lease / _RENEWALS_PER_LEASE
        while True:
            await asyncio.sleep(pause)
            asked_at, now = self._clock.monotonic(), self._clock.now()
            until = now + timedelta(seconds=lease)
            old = [one for one in self._held if one.until <= until - timedelta(seconds=pause)]
            if not old:
                continue
            try:
                kept = await self._store.renew_deliveries([one.key for one in old], until)
            except Exception as error:  # noqa: BLE001 - sent again by another, which is harmless
                _log.warning("leases of %d webhooks not renewed: %r", len(old), error)
                continue
            for one in old:
                if one.claim.delivery_id in kept:
                    one.until, one.send_until = until, asked_at + lease

    async def _doze(self) -> None:
        try:
            async with asyncio.timeout(self._settings.poll_seconds):
                await self._awake.wait()
        except TimeoutError:
            pass

    async def _claim(self) -> None:
        settings = self._settings
        room = settings.in_flight_max * _AHEAD - len(self._tasks)
        if room <= 0:
            self._is_backlogged = True
            return
        most = settings.in_flight_per_endpoint_max * _AHEAD
        asked_at = self._clock.monotonic()
        rooms = {
            endpoint_id: max(lane.breaker.room(asked_at, most) - lane.held, 0)
            for endpoint_id, lane in self._lanes.items()
        }
        now = self._clock.now()
        until = now + timedelta(seconds=settings.lease_seconds)
        claims = await self._store.claim_deliveries(
            now,
            until,
            rooms=rooms,
            room_per_endpoint=most,
            room=room,
        )
        for claim in claims:
            self._begin(_Held(claim, until, asked_at + settings.lease_seconds))
        taken = Counter(claim.endpoint_id for claim in claims)
        for endpoint_id, count in taken.items():
            self._lanes[endpoint_id].is_backlogged = count >= rooms.get(endpoint_id, most)
        self._is_backlogged = len(claims) >= room

    def _begin(self, held: _Held) -> None:
        claim = held.claim
        lane = self._lanes.get(claim.endpoint_id)
        if lane is None:
            places = asyncio.Semaphore(self._settings.in_flight_per_endpoint_max)
            lane = self._lanes[claim.endpoint_id] = _Lane(places)
        lane.held += 1
        self._held.add(held)
        task = asyncio.create_task(self._carry(lane, held), name=f"webhook {claim.delivery_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, lane: _Lane, held: _Held) -> None:
        """Take one claim to its end: an outcome that is written, or given back unsent."""
        try:
            outcome = await self._attempt(lane, held)
            if outcome is None:
                self._unsent.append(held)
            else:
                await self._keep(outcome)
        except asyncio.CancelledError:
            self._unsent.append(held)
            raise
        except Exception:  # noqa: BLE001 - see the log
            # The lease runs out and it is sent again; nobody else may suffer.
            _log.exception("webhook %s failed here", held.claim.delivery_id)
        finally:
            self._held.discard(held)
            self._end(lane, held.claim.endpoint_id)

    async def _attempt(self, lane: _Lane, held: _Held) -> Outcome | None:
        """Send; return None when it was not: too late, or the address is left alone now."""
        claim = held.claim
        if claim.is_endpoint_disabled:
            return conclude(claim, None, self._clock.now(), self._chance())
        async with lane.places, self._places:
            now = self._clock.monotonic()
            if self._is_stopping or now > held.send_until or not lane.admits(now):
                return None
            body = claim.body.encode()
            at = self._clock.now()
            headers = headers_of(
                self._secret_of(claim), claim.webhook_id, claim.biz_trace_id, at, body
            )
            lane.in_flight += 1
            try:
                answer = await self._courier.post(claim.url, headers, body)
            finally:
                lane.in_flight -= 1
            self._note(lane, answer)
        return conclude(claim, answer, self._clock.now(), self._chance())

    def _note(self, lane: _Lane, answer: Answer) -> None:
        """Tell the breaker, and the metrics."""
        now = self._clock.monotonic()
        if answer.is_up:
            if lane.breaker.open_until is not None:
                self.wake()  # what was left alone may go
            lane.breaker.note_success()
        else:
            lane.breaker.note_failure(now)
            if answer.retry_after is not None:
                lane.breaker.pause(now, answer.retry_after.total_seconds())
        _SENT.add(1, {"end": answer.problem or str(answer.http_status)})

    async def _keep(self, outcome: Outcome) -> None:
        """Write an outcome; while the database is away nobody else can claim it either."""
        give_up_at = self._clock.monotonic() + _SAVE_SECONDS
        failures = 0
        while True:
            try:
                await self._save(outcome)
            except PaymeshError as error:
                hopeless = error.retry == "NEVER" and error.outcome is CallOutcome.NOT_EXECUTED
                if hopeless or self._is_stopping or self._clock.monotonic() > give_up_at:
                    _log.warning("an attempt at %s is not noted", outcome.claim.delivery_id)
                    return
                failures += 1
                await asyncio.sleep(_SAVE_BACKOFF.pause(failures))
            else:
                return

    def _end(self, lane: _Lane, endpoint_id: str) -> None:
        lane.held -= 1
        settings = self._settings
        lane_refills = lane.is_backlogged and lane.held <= settings.in_flight_per_endpoint_max
        all_refill = self._is_backlogged and len(self._tasks) <= settings.in_flight_max
        if lane_refills or all_refill:
            self.wake()
        breaker = lane.breaker
        if lane.held == 0 and breaker.open_until is None and breaker.failures == 0:
            self._lanes.pop(endpoint_id, None)

    def _secret_of(self, claim: Claim) -> bytes:
        key = self._secrets.get(claim.endpoint_id)
        if key is None:
            if len(self._secrets) >= _SECRETS_MAX:
                self._secrets.clear()
            key = self._sealer.open(claim.sealed_secret, seal_context(claim.endpoint_id))
            self._secrets[claim.endpoint_id] = key
        return key

    async def _release_unsent(self) -> None:
        if self._unsent:
            unsent, self._unsent = self._unsent, []
            await self._store.release_deliveries([one.key for one in unsent])

    async def _stop(self) -> None:
        """Let attempts end, then give back what was not sent."""
        self._is_stopping = True
        if self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=_STOP_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        try:
            await self._release_unsent()
        except Exception as error:  # noqa: BLE001 - their leases run out
            _log.warning("claims are not given back: %r", error)
