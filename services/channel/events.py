"""What the channel service tells; it listens to nobody."""

from __future__ import annotations

from paymesh.channel.v1 import ChannelRefundChanged, ChargeChanged

from common.context import ActorType, Mode, Principal
from common.events.event import NewEvent
from common.ids import IdFactory
from common.telemetry.propagation import current_traceparent
from services.channel.convert import charge_to_proto, refund_to_proto
from services.channel.domain import Charge, Refund
from services.channel.store.movements import Announce, Told


def announcer(ids: IdFactory) -> Announce:
    """Return what makes `channel.charge.changed.v1` and `channel.refund.changed.v1`."""

    def announce(noun: Charge | Refund, told: Told) -> NewEvent:
        if isinstance(noun, Charge):
            kind = "channel.charge.changed.v1"
            payload = ChargeChanged(charge=charge_to_proto(noun)).SerializeToString()
        else:
            kind = "channel.refund.changed.v1"
            payload = ChannelRefundChanged(refund=refund_to_proto(noun)).SerializeToString()
        # One change of a row is made once, under its lock, so its event needs no derived id.
        return NewEvent(
            event_id=ids.new("evt"),
            type=kind,
            aggregate_id=noun.reference,
            aggregate_version=noun.version,
            payload=payload,
            principal=_principal(noun, told.actor),
            occurred_at=told.at,
            biz_trace_id=noun.owner.biz_trace_id,
            causation_id=told.cause,
            traceparent=current_traceparent(),
        )

    return announce


def _principal(noun: Charge | Refund, actor: str) -> Principal:
    """The row's world and merchant; a callback has none of its own."""
    kind, _, actor_id = actor.partition(":")
    return Principal(
        tenant_id=noun.owner.tenant_id,
        mode=Mode(noun.owner.mode),
        merchant_id=noun.owner.merchant_id,
        actor_type=ActorType(kind),
        actor_id=actor_id,
    )
