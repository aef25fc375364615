"""Charges, refunds and callbacks on one side, and what cases tell of them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from common.events.outbox import Outbox
from common.ids import IdFactory
from common.money import Money
from services.channel.domain import Charge, News, Owner, Refund
from services.channel.events import announcer
from services.channel.store.channels import ChannelTable
from services.channel.store.movements import ChannelStore
from services.channel.store.news import Notice, Told
from tests.conformance.stores.trade_cases import START, SetClock
from tests.conformance.stores.twins import Side

OWNER = Owner("default", "TEST", "mer_1", "SERVICE:payment", "biz_case")


@dataclass
class ChannelSide:
    """The channel service's stores on one side; ids are numbered, so both sides make the same."""

    side: Side
    clock: SetClock = field(default_factory=SetClock)

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        ids = IdFactory(self.clock, lambda _: next(numbers))
        self.store = ChannelStore(self.side.pool, Outbox(), announcer(ids))
        self.channels = ChannelTable(self.side.pool)

    def charge(self, number: int, **changes: Any) -> Charge:
        """A charge to be stored."""
        return replace(
            Charge(
                reference=f"att{number:026}",
                owner=OWNER,
                channel="alipay",
                payment_id=f"pay_{number}",
                product="qr_pay",
                card_id="",
                subject="two records",
                amount=Money("USD", 1000),
                expires_at=START + timedelta(hours=1),
                created_at=self.clock.now(),
                updated_at=self.clock.now(),
            ),
            **changes,
        )

    def refund(self, number: int, charge: int, **changes: Any) -> Refund:
        """A refund of a charge, to be stored."""
        return replace(
            Refund(
                reference=f"rfd{number:026}",
                charge_reference=f"att{charge:026}",
                owner=OWNER,
                channel="",
                subject_id=f"rfd_{number}",
                amount=Money("USD", 300),
                words="broken",
                created_at=self.clock.now(),
                updated_at=self.clock.now(),
            ),
            **changes,
        )

    def told(self, noun: Charge | Refund, state: str, **changes: Any) -> Told:
        """News of a noun, as the answer to a call."""
        news = News(state, **{name: changes.pop(name) for name in ("money",) if name in changes})
        return replace(
            Told(
                reference=noun.reference,
                news=news,
                at=self.clock.now(),
                actor="CHANNEL:alipay",
                way="answer",
                cause="request",
            ),
            **changes,
        )

    def notice(self, number: int, **changes: Any) -> Notice:
        """A callback's particulars."""
        return replace(
            Notice(
                callback_id=f"cbk_{number}",
                channel="alipay",
                notice_id=f"notice-{number}",
                kind="PAYMENT",
                raw_code="TRADE_SUCCESS",
                body_digest=bytes([number]) * 32,
            ),
            **changes,
        )
