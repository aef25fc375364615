"""How the platform speaks with a bank of the simulation: an adapter as any other."""

from __future__ import annotations

import hashlib
import json

from common.money import Money
from services.channel.adapters import Adapter, AdapterConfig
from services.channel.results import (
    Advice,
    Blame,
    Callback,
    CallbackKind,
    CallbackSignatureInvalidError,
    ChannelResult,
    Decline,
    DeclineCode,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    State,
)
from tests.simulation.bank import SECRET, Bank


class BankConfig(AdapterConfig):
    """Nothing to set."""


class BankAdapter(Adapter):
    """How the platform speaks with a bank of the simulation."""

    code = "simulated"
    config_type = BankConfig

    def __init__(self, bank: Bank) -> None:
        super().__init__(bank.channel, BankConfig(), None, bank.clock)  # type: ignore[arg-type]
        self._bank = bank
        self.shows_codes = bank.is_scanned

    async def pay(self, request: PayRequest) -> ChannelResult:
        """Take money."""
        return await self._bank.ask(lambda: self._bank.pay(request))

    async def query(self, request: QueryRequest) -> ChannelResult:
        """Ask how a payment stands."""
        return await self._bank.ask(lambda: self._bank.tell(request.reference))

    async def close(self, request: QueryRequest) -> ChannelResult:
        """End a payment unpaid."""
        return await self._bank.ask(lambda: self._bank.close(request.reference))

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """Give money back."""
        return await self._bank.ask(lambda: self._bank.refund(request))

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """Ask how a refund stands."""
        return await self._bank.ask(lambda: self._bank.tell_refund(request.reference))

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Verify and read a callback."""
        signature, text = raw.body[:64], raw.body[64:]
        if hashlib.sha256(SECRET + text).hexdigest().encode() != signature:
            raise CallbackSignatureInvalidError(channel=self.channel)
        said = json.loads(text)
        money = None
        if said["amount_minor"] is not None:
            money = Money(said["currency_code"], said["amount_minor"])
        state = State(said["state"])
        decline = None
        if state in (State.FAILED, State.CLOSED):
            decline = Decline(DeclineCode.OTHER, Advice.STOP, Blame.CHANNEL)
        return Callback(
            kind=CallbackKind(said["kind"]),
            result=ChannelResult(
                state=state,
                reference=said["reference"],
                money=money,
                decline=decline,
                occurred_at=self.clock.now() if state is State.SUCCEEDED else None,
            ),
            payment_reference=said["payment_reference"],
            notice_id=said["notice"],
        )
