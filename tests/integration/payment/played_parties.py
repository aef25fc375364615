"""The parties that payment's tests play: risk, and a channel with a bank behind it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paymesh.channel.v1 import (
    CHANNEL_REFUND_STATE_FAILED,
    CHANNEL_REFUND_STATE_PENDING,
    CHANNEL_REFUND_STATE_SUCCEEDED,
    CHARGE_STATE_CLOSED,
    CHARGE_STATE_CONFLICTED,
    CHARGE_STATE_NOT_FOUND,
    CHARGE_STATE_PENDING,
    CHARGE_STATE_SUCCEEDED,
    CallbackFinding,
    ChannelRefund,
    ChannelServiceServicer,
    Charge,
    ChargeResponse,
    CloseChargeResponse,
    ExamineCallbackResponse,
    QueryChargeResponse,
    QueryRefundResponse,
    RefundResponse,
)
from paymesh.risk.v1 import (
    VERDICT_PASS,
    AssessActionResponse,
    ResolveReservationResponse,
    RiskServiceServicer,
)
from paymesh.type.v1 import Money

from common.errors import NotFoundError, PaymeshError, UnavailableError
from services.channel.errors import RefusedByChannelError


class PlayedRisk(RiskServiceServicer):  # type: ignore[misc]
    """Risk lets everything pass."""

    async def AssessAction(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Pass."""
        return AssessActionResponse(verdict=VERDICT_PASS)

    async def ResolveReservation(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take note."""
        return ResolveReservationResponse()


@dataclass
class Bank:
    """What the played channel does, and what it did, by reference."""

    scanned: bool = True
    """The payer of a QR code has paid when the channel is asked."""
    takes: Money | None = None
    """What it takes instead of what is asked for."""
    refusals: int = 0
    """So many more attempts to give money back are refused."""
    takes_time: bool = False
    """Money goes back only some time after it was asked for."""
    is_silent: bool = False
    """Nobody answers about money that goes back, and nothing is done."""
    is_unseen: bool = False
    """Charges are stored by the channel service, and the bank does not know them yet."""
    is_mute: bool = False
    """Money is taken, and nobody answers about it."""
    rejects: PaymeshError | None = None
    """What the channel service says to every wish to give back, and stores nothing."""
    finding: str = "REFUTED"
    """What a question about a callback finds."""
    examined: str = ""
    """What a callback that is asked about belongs to."""
    asked: dict[str, Money] = field(default_factory=dict)
    charged: dict[str, Money] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    refunds: dict[str, Money] = field(default_factory=dict)
    refunded: dict[str, Money] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def behave(self) -> None:
        """Do everything well again."""
        self.scanned, self.takes, self.takes_time, self.is_silent = True, None, False, False
        self.rejects, self.examined = None, ""
        self.refusals, self.finding, self.is_mute, self.is_unseen = 0, "REFUTED", False, False

    def owes(self, currency_code: str) -> int:
        """Return what it took less what it gave back, in minor units."""
        taken = (m for m in self.charged.values() if m.currency_code == currency_code)
        given = (m for m in self.refunded.values() if m.currency_code == currency_code)
        return sum(m.amount_minor for m in taken) - sum(m.amount_minor for m in given)


class PlayedChannel(ChannelServiceServicer):  # type: ignore[misc]
    """A channel: cards at once, QR codes when asked; a repeat never executes twice."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def Charge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take the money."""
        bank = self._bank
        money = bank.takes or request.amount
        bank.asked.setdefault(request.reference, request.amount)
        if request.product == "qr_pay":
            charge = Charge(reference=request.reference, state=CHARGE_STATE_PENDING)
            charge.qr_content = "qr"
            return ChargeResponse(charge=charge)
        if not bank.is_unseen:
            bank.charged.setdefault(request.reference, money)
        return ChargeResponse(charge=self._charge(request.reference))

    async def QueryCharge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what became of it; a code is scanned just before."""
        return QueryChargeResponse(charge=self._charge(request.reference))

    async def CloseCharge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Close what nobody has paid."""
        bank = self._bank
        if request.reference in bank.asked and not bank.scanned:
            bank.closed.add(request.reference)
        return CloseChargeResponse(charge=self._charge(request.reference))

    def _charge(self, reference: str) -> Charge:
        bank = self._bank
        if bank.is_mute:
            raise UnavailableError(target="bank")
        if reference not in bank.asked:
            raise NotFoundError(resource="charge")
        if bank.is_unseen:
            return Charge(reference=reference, state=CHARGE_STATE_NOT_FOUND)
        if bank.scanned and reference not in bank.charged:
            # A payer may scan just before the code is closed, and the news come after.
            bank.charged[reference] = bank.takes or bank.asked[reference]
        if reference not in bank.charged:
            closed = reference in bank.closed
            state = CHARGE_STATE_CLOSED if closed else CHARGE_STATE_PENDING
            return Charge(reference=reference, state=state)
        received = bank.charged[reference]
        fits = received == bank.asked[reference]
        state = CHARGE_STATE_SUCCEEDED if fits else CHARGE_STATE_CONFLICTED
        return Charge(reference=reference, state=state, received=received)

    async def Refund(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Give the money back."""
        bank, reference = self._bank, request.reference
        assert request.charge_reference in bank.charged
        if bank.is_silent:
            raise UnavailableError(target="bank")
        if bank.rejects is not None:
            raise bank.rejects
        if reference not in bank.refunds and bank.refusals > 0:
            bank.refusals -= 1
            bank.refused.add(reference)
        bank.refunds.setdefault(reference, request.amount)
        if reference in bank.refused:
            raise RefusedByChannelError(code="NO")
        return RefundResponse(refund=self._refund(reference))

    async def QueryRefund(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what was given back."""
        if self._bank.is_silent:
            raise UnavailableError(target="bank")
        if request.reference not in self._bank.refunds:
            raise NotFoundError(resource="refund")
        return QueryRefundResponse(refund=self._refund(request.reference))

    def _refund(self, reference: str) -> ChannelRefund:
        bank = self._bank
        state = CHANNEL_REFUND_STATE_SUCCEEDED
        if reference in bank.refused:
            state = CHANNEL_REFUND_STATE_FAILED
        elif bank.takes_time and reference not in bank.refunded:
            state = CHANNEL_REFUND_STATE_PENDING
        else:
            bank.refunded.setdefault(reference, bank.refunds[reference])
        return ChannelRefund(reference=reference, state=state, amount=bank.refunds[reference])

    async def ExamineCallback(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what asking about a callback has found."""
        finding = CallbackFinding.Value(f"CALLBACK_FINDING_{self._bank.finding}")
        subject_id = self._bank.examined
        return ExamineCallbackResponse(finding=finding, detail="asked", subject_id=subject_id)


for _played in (PlayedRisk, PlayedChannel):
    _played.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
