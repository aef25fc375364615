"""One event, as code sees it, and its two forms: `paymesh.event.v1.Event` and bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Final

from google.protobuf.message import DecodeError
from paymesh.event.v1 import envelope_pb2
from paymesh.type.v1 import principal_pb2

from common.context import ActorType, CallContext, Mode, Principal

EVENT_BYTES_MAX: Final = 1 << 20
"""Largest event: facts about one noun fit in kilobytes, and a broker is no file store."""


class MalformedEventError(ValueError):
    """The bytes are no event that can be handled."""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that has just happened, to be written with the change itself."""

    event_id: str
    """`evt_…`, made by the caller; the same for a repeat of the same change."""
    type: str
    """`<service>.<noun>.<verb>.v<N>`, which is also the routing key."""
    aggregate_id: str
    """The noun that changed."""
    aggregate_version: int
    """Its version after the change: 1, 2, 3 … without gaps."""
    payload: bytes
    """The serialised event message that `type` names: the state after, not a pointer."""
    principal: Principal
    """Who did it."""
    occurred_at: datetime
    """When, by the service's clock (aware)."""
    biz_trace_id: str = ""
    """The story it belongs to."""
    causation_id: str = ""
    """The event or request that caused it."""
    business_date: date | None = None
    """The date that the ledger gave; None where no money moved."""
    traceparent: str = ""
    """The span it was written in."""


@dataclass(frozen=True, slots=True)
class Event(NewEvent):
    """Something that has happened, as a consumer hears of it."""

    recorded_at: datetime = field(kw_only=True)
    """When the row was written, by the sender's database."""

    def call(self, caller: str = "") -> CallContext:
        """Return the circumstances in which this event is handled."""
        return CallContext(
            principal=self.principal,
            biz_trace_id=self.biz_trace_id,
            caller=caller,
            causation_id=self.event_id,
        )


def principal_to_proto(principal: Principal) -> principal_pb2.Principal:
    """Return the principal as events carry it: without roles, which were for the call alone."""
    return principal_pb2.Principal(
        tenant_id=principal.tenant_id,
        mode=principal_pb2.Mode.Value(f"MODE_{principal.mode}"),
        merchant_id=principal.merchant_id,
        actor_type=principal_pb2.ActorType.Value(f"ACTOR_TYPE_{principal.actor_type}"),
        actor_id=principal.actor_id,
        on_behalf_of=principal.on_behalf_of,
    )


def principal_from_proto(message: principal_pb2.Principal) -> Principal:
    """Return the principal of an event.

    Raises:
        MalformedEventError: a mode or kind of actor that this version does not know; to guess
            either would mix worlds.
    """
    try:
        return Principal(
            tenant_id=message.tenant_id,
            mode=Mode(principal_pb2.Mode.Name(message.mode).removeprefix("MODE_")),
            merchant_id=message.merchant_id,
            actor_type=ActorType(
                principal_pb2.ActorType.Name(message.actor_type).removeprefix("ACTOR_TYPE_")
            ),
            actor_id=message.actor_id,
            on_behalf_of=message.on_behalf_of,
        )
    except ValueError as error:
        raise MalformedEventError(f"the principal is of an unknown kind: {error}") from error


def event_to_bytes(event: NewEvent) -> bytes:
    """Return the event serialised; raises ValueError when it is larger than EVENT_BYTES_MAX."""
    message = envelope_pb2.Event(
        event_id=event.event_id,
        type=event.type,
        business_date="" if event.business_date is None else event.business_date.isoformat(),
        aggregate_id=event.aggregate_id,
        aggregate_version=event.aggregate_version,
        principal=principal_to_proto(event.principal),
        biz_trace_id=event.biz_trace_id,
        causation_id=event.causation_id,
        traceparent=event.traceparent,
        payload=event.payload,
    )
    message.occurred_at.FromDatetime(event.occurred_at)
    if isinstance(event, Event):
        message.recorded_at.FromDatetime(event.recorded_at)
    data = message.SerializeToString()
    if len(data) > EVENT_BYTES_MAX:
        raise ValueError(f"{event.type} of {event.aggregate_id} is {len(data)} bytes long")
    return data


def event_from_proto(message: envelope_pb2.Event) -> Event:
    """Return an event of an envelope.

    Raises:
        MalformedEventError: no id, type or aggregate, a version below 1, an unknown principal.
    """
    if not (message.event_id and message.type and message.aggregate_id):
        raise MalformedEventError("an event without id, type or aggregate")
    if message.aggregate_version < 1:
        raise MalformedEventError(f"{message.event_id} has version {message.aggregate_version}")
    try:
        return Event(
            event_id=message.event_id,
            type=message.type,
            aggregate_id=message.aggregate_id,
            aggregate_version=message.aggregate_version,
            payload=message.payload,
            principal=principal_from_proto(message.principal),
            occurred_at=message.occurred_at.ToDatetime(UTC),
            biz_trace_id=message.biz_trace_id,
            causation_id=message.causation_id,
            business_date=(
                date.fromisoformat(message.business_date) if message.business_date else None
            ),
            traceparent=message.traceparent,
            recorded_at=message.recorded_at.ToDatetime(UTC),
        )
    except MalformedEventError:
        raise
    except (ValueError, OverflowError) as error:
        raise MalformedEventError(f"{message.event_id}: {error}") from error


def event_from_bytes(data: bytes) -> Event:
    """Return the event of its bytes; raises MalformedEventError."""
    message = envelope_pb2.Event()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedEventError(str(error)) from error
    return event_from_proto(message)


def envelope_to_bytes(bodies: Iterable[tuple[bytes, datetime]]) -> bytes:
    """Return an envelope of events (each its bytes and its `recorded_at`)."""
    envelope = envelope_pb2.Envelope()
    for body, recorded_at in bodies:
        message = envelope.events.add()
        message.ParseFromString(body)
        message.recorded_at.FromDatetime(recorded_at)
    return envelope.SerializeToString()


def envelope_from_bytes(data: bytes) -> Sequence[envelope_pb2.Event]:
    """Return the events of an envelope; raises MalformedEventError when it is none."""
    envelope = envelope_pb2.Envelope()
    try:
        envelope.ParseFromString(data)
    except DecodeError as error:
        raise MalformedEventError(str(error)) from error
    if not envelope.events:
        raise MalformedEventError("an envelope without events")
    return envelope.events
