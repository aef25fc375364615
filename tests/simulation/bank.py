"""A bank of the simulation: takes money, gives it back, and is as bad a partner as banks can be.

It keeps a ledger of what it really did (`Bank.taken`, `Bank.given`), which nobody else sees until
the end, when ours must agree with it to the cent. It promises less than the contract of adapters
asks for: **a request that is sent twice is executed twice.** So a platform that ever sends a
reference again without knowing that the first one got nowhere loses money here.

What it says is true, but for single callbacks: one may contradict what happened, name another
amount, be signed by somebody else or tell of nothing known. The true callback is always sent too,
again and again until it is acknowledged.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from common.clock import Clock
from common.money import Money
from services.channel.results import (
    Advice,
    Blame,
    ChannelResult,
    ChannelUnavailableError,
    Decline,
    DeclineCode,
    DeclinedError,
    PayRequest,
    RefundRequest,
    ShowQrCode,
    State,
)
from services.channel.transport import mark_written
from tests.simulation.faults import Faults
from tests.simulation.loop import SimulatedLoop
from tests.simulation.network import later
from tests.simulation.process import check_alive

SECRET: Final = b"the bank's key"
"""Signs its callbacks."""
_REPEATS_PAUSE_MAX: Final = 600.0

Deliver = Callable[[str, bytes], Awaitable[bool]]
"""Brings a callback (channel, body) to the platform; True when it was acknowledged."""


@dataclass
class Taking:
    """One reference under which money was asked for."""

    money: Money
    expires_at: datetime | None
    state: State = State.PENDING
    taken_minor: int = 0
    """What was really taken."""
    received_minor: int = 0
    """What the bank says of it: of one taking, however often it was executed."""
    decline: Decline | None = None


@dataclass
class Giving:
    """One reference under which money was to go back."""

    payment_reference: str
    money: Money
    state: State = State.PENDING
    decline: Decline | None = None
    times: int = 1
    was_refused: bool = False
    """It was refused, and carried out all the same."""


@dataclass(kw_only=True)
class Bank:
    """One outside party, reached by one of our channels."""

    channel: str = field(kw_only=False)
    is_scanned: bool
    """Payers scan a code; else a card is charged at once."""
    loop: SimulatedLoop
    clock: Clock
    faults: Faults
    deliver: Deliver
    caps_refunds: bool
    """It refuses to give back more than it took; not every bank does."""
    takings: dict[str, Taking] = field(default_factory=dict)
    givings: dict[str, Giving] = field(default_factory=dict)
    away_until: float = 0.0
    callbacks: int = 0
    """Callbacks that are still to be acknowledged."""
    _notices: int = 0

    @property
    def taken_minor(self) -> int:
        """All that it took from payers."""
        return sum(one.taken_minor for one in self.takings.values())

    @property
    def given_minor(self) -> int:
        """All that it gave back."""
        return sum(
            one.money.amount_minor * one.times
            for one in self.givings.values()
            if one.state is State.SUCCEEDED
        )

    # Requests.

    async def ask(self, act: Callable[[], ChannelResult]) -> ChannelResult:
        """Carry a request to the bank and its answer back; either may be lost or slow."""
        check_alive()
        faults = self.faults
        if self.loop.time() < self.away_until and not faults.is_over:
            raise ChannelUnavailableError(channel=self.channel, cause="away")
        if faults.happens("bank is away"):
            self.away_until = self.loop.time() + faults.between(5.0, 300.0)
        mark_written()
        answer: asyncio.Future[Any] = self.loop.create_future()
        pause = faults.between(0.005, 0.3)
        if faults.happens("bank is slow"):
            pause += faults.between(1.0, 60.0)
        if not faults.happens("bank loses the request"):
            later(self.loop, pause, self._act, act, answer)
        found = await answer
        if isinstance(found, Exception):
            raise found
        result: ChannelResult = found
        return result

    def _act(self, act: Callable[[], ChannelResult], answer: asyncio.Future[Any]) -> None:
        found: Any
        try:
            found = act()
        except DeclinedError as error:
            found = error
        if not self.faults.happens("bank loses the answer"):
            later(self.loop, self.faults.between(0.005, 0.3), _answer, answer, found)

    # Taking money.

    def pay(self, request: PayRequest) -> ChannelResult:
        """Take money, or show a code."""
        known = self.takings.get(request.reference)
        if known is not None and (self.is_scanned or known.state is not State.SUCCEEDED):
            return self.tell(request.reference)
        if known is not None:
            known.taken_minor += known.received_minor  # asked twice, charged twice
            return self.tell(request.reference)
        taking = self.takings[request.reference] = Taking(request.money, request.expires_at)
        self.loop.note(f"bank {self.channel} is asked for {request.money.amount_minor}")
        if self._is_over(taking):
            self._decline(request.reference, DeclineCode.EXPIRED, Advice.STOP)
        elif self.is_scanned:
            if self.faults.chance.random() < 0.85:
                pause = self.faults.between(0.05, 900.0)
                later(self.loop, pause, self._take, request.reference)
        elif self.faults.happens("bank declines"):
            self._decline(request.reference, DeclineCode.INSUFFICIENT_FUNDS, Advice.OTHER_METHOD)
        elif self.faults.happens("bank is pending"):
            work = self._take if self.faults.chance.random() < 0.8 else self._refuse
            later(self.loop, self.faults.between(0.5, 600.0), work, request.reference)
        else:
            self._take(request.reference)
        result = self.tell(request.reference)
        if result.state is State.FAILED:
            raise _declined(self.channel, result.decline)
        return result

    def _is_over(self, taking: Taking) -> bool:
        return taking.expires_at is not None and taking.expires_at <= self.clock.now()

    def _take(self, reference: str) -> None:
        taking = self.takings[reference]
        if taking.state is not State.PENDING or (self.is_scanned and self._is_over(taking)):
            return
        amount = taking.money.amount_minor
        if self.faults.happens("bank takes another amount"):
            amount = max(1, amount + self.faults.chance.choice((-100, -1, 1, 100)))
        taking.state, taking.taken_minor, taking.received_minor = State.SUCCEEDED, amount, amount
        self.loop.note(f"bank {self.channel} takes {amount}")
        self._call_back(reference)

    def _refuse(self, reference: str) -> None:
        if self.takings[reference].state is State.PENDING:
            self._decline(reference, DeclineCode.ISSUER_REFUSED, Advice.OTHER_METHOD)
            self._call_back(reference)

    def _decline(self, reference: str, code: DeclineCode, advice: Advice) -> None:
        taking = self.takings[reference]
        taking.state, taking.decline = State.FAILED, Decline(code, advice, Blame.PAYER)

    def tell(self, reference: str) -> ChannelResult:
        """Say how a taking stands."""
        taking = self.takings.get(reference)
        if taking is None:
            return ChannelResult(state=State.NOT_FOUND, reference=reference)
        paid = taking.state is State.SUCCEEDED
        action = ShowQrCode(f"qr:{reference}") if self.is_scanned and not paid else None
        return ChannelResult(
            state=taking.state,
            reference=reference,
            money=Money(taking.money.currency_code, taking.received_minor) if paid else None,
            channel_transaction_no=f"no{reference}" if paid else "",
            decline=taking.decline,
            next_action=action,
            occurred_at=self.clock.now() if paid else None,
        )

    def close(self, reference: str) -> ChannelResult:
        """End a taking unpaid; a card that is being charged cannot be called back."""
        taking = self.takings.get(reference)
        if taking is not None and taking.state is State.PENDING and self.is_scanned:
            taking.state = State.CLOSED
            taking.decline = Decline(DeclineCode.EXPIRED, Advice.STOP, Blame.MERCHANT)
        return self.tell(reference)

    # Giving it back.

    def refund(self, request: RefundRequest) -> ChannelResult:
        """Give money back, up to what was taken."""
        known = self.givings.get(request.reference)
        if known is not None and known.state is State.SUCCEEDED:
            known.times += 1  # asked twice, given twice
            return self.tell_refund(request.reference)
        if known is not None and known.state is State.PENDING:
            return self.tell_refund(request.reference)
        giving = Giving(request.payment_reference, request.money)
        code = self._refusal_of(giving)
        if code is not None:
            giving.state, giving.decline = State.FAILED, Decline(code, Advice.STOP, Blame.MERCHANT)
            self.givings[request.reference] = giving
            self._perhaps_think_again(request.reference)
            raise _declined(self.channel, giving.decline)
        self.givings[request.reference] = giving
        if self.faults.happens("bank is pending"):
            later(self.loop, self.faults.between(0.5, 900.0), self._give, request.reference)
        else:
            self._give(request.reference)
        return self.tell_refund(request.reference)

    def _refusal_of(self, giving: Giving) -> DeclineCode | None:
        taking = self.takings.get(giving.payment_reference)
        if taking is None or taking.state is not State.SUCCEEDED:
            return DeclineCode.ORIGINAL_NOT_FOUND
        if self._is_too_much(giving, taking):
            return DeclineCode.AMOUNT_EXCEEDS_ORIGINAL
        if self.faults.happens("bank refuses the refund"):
            return DeclineCode.REFUND_CLOSED
        return None

    def _give(self, reference: str) -> None:
        giving = self.givings[reference]
        if giving.state is not State.PENDING:
            return
        if self.faults.happens("bank refuses an accepted refund"):
            giving.state = State.FAILED
            giving.decline = Decline(DeclineCode.REFUND_CLOSED, Advice.STOP, Blame.CHANNEL)
            self._perhaps_think_again(reference)
        else:
            giving.state = State.SUCCEEDED
            self.loop.note(f"bank {self.channel} gives back {giving.money.amount_minor}")
        self._call_back(reference)

    def _perhaps_think_again(self, reference: str) -> None:
        if self.faults.happens("bank carries out what it refused"):
            later(self.loop, self.faults.between(0.5, 8_000.0), self._give_after_all, reference)

    def _give_after_all(self, reference: str) -> None:
        giving = self.givings[reference]
        taking = self.takings.get(giving.payment_reference)
        if giving.state is not State.FAILED or taking is None:
            return
        if taking.state is not State.SUCCEEDED or self._is_too_much(giving, taking):
            return
        giving.state, giving.decline, giving.was_refused = State.SUCCEEDED, None, True
        self.loop.note(f"bank {self.channel} gives back after all {giving.money.amount_minor}")
        self._call_back(reference)

    def _is_too_much(self, giving: Giving, taking: Taking) -> bool:
        promised = sum(
            one.money.amount_minor
            for one in self.givings.values()
            if one.payment_reference == giving.payment_reference
            and one.state in (State.SUCCEEDED, State.PENDING)
        )
        left = taking.received_minor - promised
        return self.caps_refunds and giving.money.amount_minor > left

    def tell_refund(self, reference: str) -> ChannelResult:
        """Say how a refund stands."""
        giving = self.givings.get(reference)
        if giving is None:
            return ChannelResult(state=State.NOT_FOUND, reference=reference)
        return ChannelResult(
            state=giving.state,
            reference=reference,
            money=giving.money if giving.state is State.SUCCEEDED else None,
            decline=giving.decline,
            occurred_at=self.clock.now() if giving.state is State.SUCCEEDED else None,
        )

    # Callbacks.

    def _call_back(self, reference: str) -> None:
        """Tell the platform until it has heard, and perhaps more than is true."""
        faults = self.faults
        self._send(self._body(reference), is_true=True)
        if faults.happens("callback repeated"):
            self._send(self._body(reference, notice=self._notices), is_true=False)
        if faults.happens("callback contradicts"):
            state = State.FAILED if faults.chance.random() < 0.5 else State.CLOSED
            self._send(self._body(reference, state=state), is_true=False)
        if faults.happens("callback with another amount"):
            self._send(self._body(reference, more_minor=1), is_true=False)
        if faults.happens("callback with a wrong signature"):
            self._send(self._body(reference, secret=b"a thief's key"), is_true=False)
        if faults.happens("callback about nothing"):
            self._send(self._body(reference, named=f"{reference[:-6]}zzzzzz"), is_true=False)

    def _body(
        self,
        reference: str,
        *,
        notice: int = 0,
        state: State | None = None,
        more_minor: int = 0,
        secret: bytes = SECRET,
        named: str = "",
    ) -> bytes:
        giving = self.givings.get(reference)
        result = self.tell(reference) if giving is None else self.tell_refund(reference)
        if not notice:
            self._notices += 1
        said = {
            "notice": f"{self.channel}-{notice or self._notices}",
            "kind": "PAYMENT" if giving is None else "REFUND",
            "reference": named or reference,
            "payment_reference": named
            or (reference if giving is None else giving.payment_reference),
            "state": state or result.state,
            "amount_minor": result.money.amount_minor + more_minor if result.money else None,
            "currency_code": result.money.currency_code if result.money else None,
        }
        text = json.dumps(said, sort_keys=True).encode()
        return hashlib.sha256(secret + text).hexdigest().encode() + text

    def _send(self, body: bytes, *, is_true: bool) -> None:
        pause = 0.0 if self.faults.happens("callback early") else self.faults.between(0.01, 2.0)
        if self.faults.happens("callback late"):
            pause += self.faults.between(5.0, 1200.0)
        self.callbacks += 1
        later(self.loop, pause, self._try, body, is_true, 1)

    def _try(self, body: bytes, is_true: bool, tries: int) -> None:
        if self.faults.happens("callback lost"):
            self._again(body, is_true, tries)
            return
        task = self.loop.create_task(self._deliver(body))
        task.add_done_callback(partial(self._delivered, body, is_true, tries))

    async def _deliver(self, body: bytes) -> bool:
        return await self.deliver(self.channel, body)

    def _delivered(self, body: bytes, is_true: bool, tries: int, task: asyncio.Task[bool]) -> None:
        if task.exception() is None and task.result():
            self.callbacks -= 1
        else:
            self._again(body, is_true, tries)

    def _again(self, body: bytes, is_true: bool, tries: int) -> None:
        if not is_true and tries >= 3:
            self.callbacks -= 1
            return
        pause = min(2.0**tries, _REPEATS_PAUSE_MAX)
        later(self.loop, pause, self._try, body, is_true, tries + 1)


def _answer(answer: asyncio.Future[Any], found: Any) -> None:
    if not answer.done():
        answer.set_result(found)


def _declined(channel: str, decline: Decline | None) -> DeclinedError:
    decline = decline or Decline(DeclineCode.OTHER, Advice.STOP, Blame.CHANNEL)
    return DeclinedError(decline, channel=channel, raw_code=decline.code)
