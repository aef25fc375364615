"""An outside party inside the test: it does as told, keeps its own ledger, and never lies there.

It stands where an adapter stands, so the guard and everything above it are the real ones. Real
protocols are spoken to the sandbox by other tests; here the point is what a party can do to us.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.clock import Clock
from common.money import Money
from services.channel.adapters import Adapter
from services.channel.catalogue import Channel
from services.channel.declines import PAYER_CANCELLED
from services.channel.guard import Guard, Hook
from services.channel.results import (
    Acknowledgement,
    Advice,
    Blame,
    Callback,
    CallbackKind,
    CallbackSignatureInvalidError,
    ChannelResult,
    Decline,
    DeclineCode,
    DeclinedError,
    PayRequest,
    QueryRequest,
    RawCallback,
    RefundRequest,
    ShowQrCode,
    State,
)
from services.channel.store.channels import ChannelRow
from services.channel.transport import mark_written

CODE = "played_a"
REFUSED = Decline(DeclineCode.REFUND_CLOSED, Advice.STOP, Blame.CHANNEL)


@dataclass
class Standing:
    """What the party knows of one request."""

    state: State
    money: Money
    executed: int = 0
    """How often money moved under this reference."""


@dataclass
class Ledger:
    """What the party really did."""

    charges: dict[str, Standing] = field(default_factory=dict)
    refunds: dict[str, Standing] = field(default_factory=dict)


class PlayedParty(Adapter):
    """Cards at once, codes when `payer_pays`; refunds at once, or in processing."""

    code = "played"
    acknowledgement = Acknowledgement(200, b"thanks")

    def __init__(self) -> None:
        self.channel = CODE
        self.ledger = Ledger()
        self.takes: Money | None = None
        """What it really takes, instead of what it is asked for."""
        self.waits_for_payer = False
        self.declines = False
        self.processes_refunds = False
        self.plan: list[str] = []
        """One entry a request: `ok`, `away`, `lost_before`, `lost_after`, `hang`; or `slow`, which
        answers when `release` is set."""
        self.release = asyncio.Event()
        self.always = "ok"
        self.asked: list[str] = []
        """Names of the verbs, in the order of their coming."""
        self.on_question: Callable[[], Any] | None = None
        """Awaited once, while a question waits for its answer."""
        self.on_pay: Callable[[], Any] | None = None
        """Awaited once, when the money was taken and the answer is not sent yet."""

    # What it is asked.

    async def _met(self, verb: str) -> str:
        self.asked.append(verb)
        misdeed = self.plan.pop(0) if self.plan else self.always
        if misdeed == "away":
            raise ConnectionRefusedError
        mark_written()
        if misdeed == "lost_before":
            raise ConnectionResetError
        if misdeed == "hang":
            await asyncio.Event().wait()
        return misdeed

    async def _meanwhile(self, name: str) -> None:
        happens = getattr(self, name)
        if happens is not None:
            setattr(self, name, None)
            await happens()

    async def _dawdle(self, misdeed: str) -> None:
        if misdeed == "slow":
            await self.release.wait()

    def _answer(self, misdeed: str, reference: str, standing: Standing) -> ChannelResult:
        if misdeed == "lost_after":
            raise ConnectionResetError
        waits = standing.state is State.PENDING and self.waits_for_payer
        ended = standing.state in (State.FAILED, State.CLOSED)
        return ChannelResult(
            state=standing.state,
            reference=reference,
            money=standing.money,
            channel_transaction_no=f"N{reference}",
            decline=PAYER_CANCELLED if ended else None,
            next_action=ShowQrCode(f"qr:{reference}") if waits else None,
        )

    async def pay(self, request: PayRequest) -> ChannelResult:
        """Take money, once per reference."""
        misdeed = await self._met("pay")
        standing = self.ledger.charges.get(request.reference)
        if standing is None:
            standing = Standing(State.PENDING, self.takes or request.money)
            self.ledger.charges[request.reference] = standing
            if self.declines:
                standing.state = State.FAILED
            elif not self.waits_for_payer:
                self.payer_pays(request.reference)
        await self._meanwhile("on_pay")
        await self._dawdle(misdeed)
        if standing.state is State.FAILED and misdeed == "ok":
            decline = Decline(DeclineCode.INSUFFICIENT_FUNDS, Advice.OTHER_METHOD, Blame.PAYER)
            raise DeclinedError(decline, channel=self.channel, raw_code="51")
        return self._answer(misdeed, request.reference, standing)

    async def query(self, request: QueryRequest) -> ChannelResult:
        """Tell the truth."""
        misdeed = await self._met("query")
        standing = self.ledger.charges.get(request.reference)
        await self._meanwhile("on_question")
        if standing is None:
            return ChannelResult(state=State.NOT_FOUND, reference=request.reference)
        return self._answer(misdeed, request.reference, standing)

    async def close(self, request: QueryRequest) -> ChannelResult:
        """Close what nobody has paid."""
        misdeed = await self._met("close")
        standing = self.ledger.charges.get(request.reference)
        if standing is None:
            return ChannelResult(state=State.NOT_FOUND, reference=request.reference)
        if standing.state is State.PENDING:
            standing.state = State.CLOSED
        return self._answer(misdeed, request.reference, standing)

    async def refund(self, request: RefundRequest) -> ChannelResult:
        """Give money back, once per reference."""
        misdeed = await self._met("refund")
        assert self.ledger.charges[request.payment_reference].state is State.SUCCEEDED
        standing = self.ledger.refunds.get(request.reference)
        if standing is None:
            standing = Standing(State.PENDING, self.takes or request.money)
            self.ledger.refunds[request.reference] = standing
            if not self.processes_refunds:
                self.end_refund(request.reference)
        await self._dawdle(misdeed)
        return self._answer(misdeed, request.reference, standing)

    async def query_refund(self, request: RefundRequest) -> ChannelResult:
        """Tell the truth."""
        misdeed = await self._met("query_refund")
        standing = self.ledger.refunds.get(request.reference)
        await self._meanwhile("on_question")
        if standing is None:
            return ChannelResult(state=State.NOT_FOUND, reference=request.reference)
        return self._answer(misdeed, request.reference, standing)

    # What it does by itself.

    def payer_pays(self, reference: str) -> None:
        """The payer pays."""
        standing = self.ledger.charges[reference]
        standing.state = State.SUCCEEDED
        standing.executed += 1

    def end_refund(self, reference: str, *, is_refused: bool = False) -> None:
        """A refund in processing comes to its end."""
        standing = self.ledger.refunds[reference]
        standing.state = State.FAILED if is_refused else State.SUCCEEDED
        standing.executed += not is_refused

    def forget(self, reference: str) -> None:
        """Know nothing of a request any more; only for what moved no money."""
        for noun in (self.ledger.charges, self.ledger.refunds):
            standing = noun.pop(reference, None)
            assert standing is None or not standing.executed

    # What it tells.

    async def parse_callback(self, raw: RawCallback) -> Callback:
        """Read what `notice` made."""
        fields = json.loads(raw.body)
        if fields["signed_by"] != self.channel:
            raise CallbackSignatureInvalidError(channel=self.channel)
        kind = CallbackKind(fields["kind"])
        money = Money(*fields["money"]) if fields["money"] else None
        return Callback(
            kind=kind,
            result=ChannelResult(
                state=State(fields["state"]),
                reference=fields["reference"],
                money=money,
                channel_transaction_no=f"N{fields['reference']}",
                raw_code=fields["state"],
            ),
            payment_reference=fields["payment_reference"] or fields["reference"],
            notice_id=fields["notice_id"],
        )


def notice(
    reference: str,
    state: str = "SUCCEEDED",
    money: Money | None = None,
    *,
    kind: str = "PAYMENT",
    payment_reference: str = "",
    signed_by: str = CODE,
    copy: str = "",
) -> RawCallback:
    """Return a callback of the party; equal arguments make copies of one callback."""
    fields = {
        "reference": reference,
        "state": state,
        "money": [money.currency_code, money.amount_minor] if money else None,
        "kind": kind,
        "payment_reference": payment_reference,
    }
    fields["notice_id"] = f"{copy}-{json.dumps(fields)}"
    return RawCallback(body=json.dumps({**fields, "signed_by": signed_by}).encode())


def played_channel(party: PlayedParty, clock: Clock, hooks: Sequence[Hook] = ()) -> Channel:
    """Return the channel at whose other end the party is."""
    row = ChannelRow(
        code=CODE,
        adapter=party.code,
        products=("quick_pay", "qr_pay"),
        currency_codes=("USD",),
        amount_min_minor=1,
        amount_max_minor=100_000_000,
        request_life_seconds=120,
        timeout_seconds=0.5,
        suspended=False,
        config={},
        credentials=CODE,
    )
    guard = Guard(
        party,
        clock=clock,
        hooks=hooks,
        timeout_seconds=row.timeout_seconds,
        reserve_seconds=0.05,
    )
    return Channel(row, guard)
