"""A payment and a refund as the flows hold them; immutable, every change is a new value."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from common.ids import channel_reference, derive
from common.money import Money, returned_fee
from services.payment.domain.states import (
    PaymentState,
    RefundState,
    check_payment_path,
    check_refund_path,
)

BALANCE: Final = "balance"
"""Adapter name of the channels inside the house: money moves in the ledger alone."""


class PaymentForm(enum.StrEnum):
    """Which of the four movements an instruction is."""

    RECHARGE = "RECHARGE"
    WITHDRAW = "WITHDRAW"
    REFUND = "REFUND"
    TRANSFER = "TRANSFER"


class WayOut(enum.StrEnum):
    """How money that has to go back leaves the platform's ways."""

    RETURN = "RETURN"
    """The channel says that the payer has it."""
    UNCLAIM = "UNCLAIM"
    """It refuses for good: kept for the payer."""


Tries = Mapping[str, int]
"""Step of a booking → which try of it the next one is; a step that is not named is at its first.

A booking that the ledger has refused for good has burned its ids, and is tried again under others.
"""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose row it is, as every row keeps it."""

    tenant_id: str
    mode: str
    merchant_id: str
    actor: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a payment or refund failed."""

    reason: str
    """Value name of `ErrorReason`."""
    decline_code: str = ""
    raw_code: str = ""
    advice: str = ""

    @property
    def is_by_decision(self) -> bool:
        """Whether people have decided it while nobody knew: the channel may yet say otherwise."""
        return self.reason == LET_FAIL.reason


LET_FAIL: Final = Failure("CHANNEL_OUTCOME_UNKNOWN", advice="TRY_AGAIN")
"""Why something failed of which nobody knew: people had proof that nothing moved."""


@dataclass(frozen=True, slots=True)
class NextAction:
    """What the payer has to do: show a QR code, follow a redirect, or wait."""

    kind: str
    """`show_qr`, `redirect` or `wait`."""
    content: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """What payment needs to know of an order."""

    id: str
    merchant_id: str
    type: str
    state: str
    amount: Money
    user_id: str
    subject: str
    fee_minor: int
    fee_returned_on_refund: bool
    biz_trace_id: str
    payment_id: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment of an order, by one product."""

    id: str
    order_id: str
    owner: Owner
    product: str
    form: PaymentForm
    state: PaymentState
    amount: Money
    user_id: str
    card_id: str
    bank_code: str
    order_type: str
    biz_trace_id: str
    created_at: datetime
    expires_at: datetime
    version: int = 1
    channel: str = ""
    channel_reason: str = ""
    attempt: int = 1
    """Number of the channel attempt; each has a reference of its own."""
    risk_verdict: str = ""
    risk_rules: tuple[str, ...] = ()
    next_action: NextAction | None = None
    failure: Failure | None = None
    fee_minor: int = 0
    fee_returned_on_refund: bool = False
    refunded_minor: int = 0
    refunding_minor: int = 0
    fee_given_back_minor: int = 0
    """Fee of every refund that has not failed, in minor units."""
    business_date: str = ""
    received: Money | None = None
    """What really came, where it was other money than `amount`: from CONFLICTED on."""
    return_attempt: int = 1
    """Number of the attempt to give all of it back at the channel."""
    way_out: WayOut | None = None
    """What is booked, or was: decided first, while RETURNING, so that never both are."""
    late_returns: int = 0
    """How often the channel has given it back too often: each a loss."""
    tries: Tries = field(default_factory=dict)
    updated_at: datetime | None = None
    """When it changed last; None before it was written."""
    subject: str = ""
    request_id: str = ""
    client_ip: str = ""
    device_id: str = ""

    @property
    def is_internal(self) -> bool:
        """Whether the money moves inside the ledger alone."""
        return self.channel.startswith(BALANCE)

    @property
    def attempt_id(self) -> str:
        """Id of the present attempt; its letters are the reference at the channel."""
        return derive("att", self.id, "attempt", self.attempt)

    @property
    def money_in(self) -> Money:
        """What has come in and goes back when the payment cannot win: what really came."""
        return self.received or self.amount

    def tried_again(self, step: str) -> Payment:
        """Return the payment with a step's booking under the next ids."""
        return replace(self, version=self.version + 1, tries=_next_try(self.tries, step))

    def moved(self, *path: PaymentState, **changes: object) -> Payment:
        """Return the payment after a path of legal moves; each counts as one version."""
        check_payment_path((self.state, *path))
        return replace(self, state=path[-1], version=self.version + len(path), **changes)  # type: ignore[arg-type]

    @property
    def net_minor(self) -> int:
        """What the merchant gets, in minor units."""
        return self.amount.amount_minor - self.fee_minor

    @property
    def refundable_minor(self) -> int:
        """What may still be asked back, in minor units."""
        return self.amount.amount_minor - self.refunded_minor - self.refunding_minor

    def fee_for_refund(self, refund_minor: int) -> int:
        """Return the fee that goes back with one more refund, in minor units.

        f(all refunds so far, this one too) − what their fees were: the same as f − f in sequence,
        and exact too when one of several at once fails later.
        """
        if not self.fee_returned_on_refund or self.fee_minor == 0:
            return 0
        before = self.refunded_minor + self.refunding_minor
        until = returned_fee(self.fee_minor, self.amount.amount_minor, 0, before + refund_minor)
        return max(0, min(until - self.fee_given_back_minor, refund_minor))


@dataclass(frozen=True, slots=True)
class Refund:
    """An instruction to give money back on a payment."""

    id: str
    payment_id: str
    order_id: str
    owner: Owner
    state: RefundState
    amount: Money
    fee_returned_minor: int
    biz_trace_id: str
    created_at: datetime
    version: int = 1
    reason: str = ""
    attempt: int = 1
    """Number of the attempt to hold the money; a refused hold burns its ids."""
    source_kind: str = ""
    """Kind of the account that the hold is on; empty before one stands."""
    failure: Failure | None = None
    """Why it failed; before FAILED: it is decided that it fails, its holds are being released."""
    business_date: str = ""
    """Business date of what was booked: when it succeeded, or went back though it had failed."""
    tries: Tries = field(default_factory=dict)
    updated_at: datetime | None = None

    @property
    def is_late(self) -> bool:
        """Whether the channel gave the money back after the refund had failed, and it is booked."""
        return self.state is RefundState.FAILED and self.business_date != ""

    def tried_again(self, step: str) -> Refund:
        """Return the refund with a step's booking under the next ids."""
        return replace(self, version=self.version + 1, tries=_next_try(self.tries, step))

    def with_fee(self, fee_returned_minor: int) -> Refund:
        """Return the refund with the fee that goes back with it, computed once when it is made."""
        return replace(self, fee_returned_minor=fee_returned_minor)

    def moved(self, *path: RefundState, **changes: object) -> Refund:
        """Return the refund after a path of legal moves; each counts as one version."""
        check_refund_path((self.state, *path))
        return replace(self, state=path[-1], version=self.version + len(path), **changes)  # type: ignore[arg-type]


def refund_reference(noun_id: str, attempt: int = 1) -> str:
    """Return our reference at the channel for giving back `noun_id` (a refund, or a payment).

    Each attempt has its own: what a channel has refused under one reference stays refused.
    """
    again = (attempt,) if attempt > 1 else ()
    return channel_reference(derive("rch", noun_id, "channel", *again))


def _next_try(tries: Tries, step: str) -> Tries:
    return {**tries, step: tries.get(step, 1) + 1}


@dataclass(frozen=True, slots=True)
class ChargeNews:
    """What a channel says of a charge."""

    state: str
    """Name of a `ChargeState`, without its prefix; or `NEVER_ASKED`.

    NOT_FOUND: the channel does not know the charge yet; the channel service ends it when its life
    is over. NEVER_ASKED: the channel service itself has no such charge.
    """
    received: Money | None = None
    qr_content: str = ""
    redirect_url: str = ""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class GiveBackNews:
    """What a channel says of money that is to go back."""

    state: str
    """Name of a `ChannelRefundState`, without its prefix; or `OTHER`: under our reference there is
    another refund than ours."""
    raw_code: str = ""
    """The channel's own code of a refusal."""
    reason: str = "DECLINED"
    """Value name of `ErrorReason` of a refusal."""


ON_ITS_WAY: Final = frozenset({"PENDING", "UNKNOWN"})
"""States of `GiveBackNews` that may still bring money back; NOT_FOUND and NOT_SENT were never asked
of the channel."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What risk says of a payment."""

    verdict: str
    rules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """The channels that may carry a payment, best first, each with the reason."""

    candidates: tuple[tuple[str, str], ...]
    rejections: Mapping[str, str] = field(default_factory=dict)
