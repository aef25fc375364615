"""What the channel service tells; it listens to nobody."""

from __future__ import annotations

from paymesh.channel.v1 import CallbackQuestioned, ChannelRefundChanged, ChargeChanged

from common.context import ActorType, Mode, Principal
from common.events.event import NewEvent
from common.ids import IdFactory
from common.telemetry.propagation import current_traceparent
from services.channel.convert import charge_to_proto, money_to_proto, refund_to_proto
from services.channel.domain import Charge, Refund, Verdict
from services.channel.store.news import Announce, Told


def announcer(ids: IdFactory) -> Announce:
    """Return what makes the events of this service."""
    return _Announcer(ids)


class _Announcer:
    """Makes `channel.charge.changed.v1`, `.refund.changed.v1` and `.callback.questioned.v1`."""

    def __init__(self, ids: IdFactory) -> None:
        self._ids = ids

    def changed(self, noun: Charge | Refund, told: Told) -> NewEvent:
        """A charge or refund has changed, or has to be asked about again."""
        if isinstance(noun, Charge):
            kind = "channel.charge.changed.v1"
            payload = ChargeChanged(charge=charge_to_proto(noun)).SerializeToString()
        else:
            kind = "channel.refund.changed.v1"
            payload = ChannelRefundChanged(refund=refund_to_proto(noun)).SerializeToString()
        return self._event(
            kind,
            (noun.reference, noun.version),
            payload,
            _principal(noun, told.actor),
            noun.owner.biz_trace_id,
            told,
        )

    def questioned(self, noun: Charge | Refund | None, told: Told, verdict: Verdict) -> NewEvent:
        """A callback tells of nothing that we asked for, or denies what is known."""
        notice, news = told.notice, told.news
        assert notice is not None  # noqa: S101 - only callbacks are questioned
        subject_id = story = ""
        principal = _own_principal(told.actor)
        if noun is not None:
            subject_id = noun.payment_id if isinstance(noun, Charge) else noun.subject_id
            story = noun.owner.biz_trace_id
            principal = _principal(noun, told.actor)
        body = CallbackQuestioned(
            callback_id=notice.callback_id,
            channel=notice.channel,
            verdict=verdict.value,
            reference=told.reference,
            subject_id=subject_id,
            told_state=news.state,
            raw_code=notice.raw_code,
            payment_reference=notice.payment_reference,
        )
        if news.money is not None:
            body.money.CopyFrom(money_to_proto(news.money))
        kind = "channel.callback.questioned.v1"
        payload = body.SerializeToString()
        # A callback is kept once and never changes.
        return self._event(kind, (notice.callback_id, 1), payload, principal, story, told)

    def _event(
        self,
        kind: str,
        aggregate: tuple[str, int],
        payload: bytes,
        principal: Principal,
        biz_trace_id: str,
        told: Told,
    ) -> NewEvent:
        # One change of a row is made once, under its lock, so its event needs no derived id.
        return NewEvent(
            event_id=self._ids.new("evt"),
            type=kind,
            aggregate_id=aggregate[0],
            aggregate_version=aggregate[1],
            payload=payload,
            principal=principal,
            occurred_at=told.at,
            biz_trace_id=biz_trace_id,
            causation_id=told.cause,
            traceparent=current_traceparent(),
        )


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


def _own_principal(actor: str) -> Principal:
    """Whoever called, for a callback that belongs to no row."""
    kind, _, actor_id = actor.partition(":")
    return Principal(actor_type=ActorType(kind), actor_id=actor_id)
