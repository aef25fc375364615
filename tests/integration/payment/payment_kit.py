"""Payment on the real ledger, trade, routing and settlement; risk and the channel are played.

`BreakingPeers` and `BreakingWriter` die at a step of one's choice, before or after it had its
effect, as a process does: what they raise is caught by no flow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from hosted_services import HostedKit, hosting, merchant_call
from paymesh.account import account_id_for
from paymesh.account.v1 import (
    TRANSFER_KIND_SINGLE,
    TRANSFER_STATUS_BOOKED,
    AccountServiceStub,
    AccountSpec,
    CreateTransfersRequest,
    GetAccountsRequest,
    OpenAccountsRequest,
    TransferSpec,
)
from paymesh.channel.v1 import (
    CHANNEL_REFUND_STATE_SUCCEEDED,
    CHARGE_STATE_PENDING,
    CHARGE_STATE_SUCCEEDED,
    ChannelRefund,
    ChannelServiceServicer,
    Charge,
    ChargeResponse,
    QueryChargeResponse,
    QueryRefundResponse,
    RefundResponse,
    add_ChannelServiceServicer_to_server,
)
from paymesh.risk.v1 import (
    VERDICT_PASS,
    AssessActionResponse,
    ResolveReservationResponse,
    RiskServiceServicer,
    add_RiskServiceServicer_to_server,
)
from paymesh.trade.v1 import CreateOrderRequest, Order, TradeServiceStub
from paymesh.type.v1 import Money

import services.account.wiring
import services.payment.wiring
import services.routing.wiring
import services.settlement.wiring
import services.trade.wiring
from common.context import bound
from common.errors import NotFoundError
from common.events.outbox import Outbox
from common.jobs.jobs import Jobs
from services.account.store.reading import ReadingStore
from services.payment.config import PaymentSettings
from services.payment.events import Announcements
from services.payment.flows.parts import Parts
from services.payment.peers import Peers
from services.payment.products import PRODUCTS
from services.payment.store.exceptions import ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.refunds import RefundStore
from services.payment.writer import PaymentWriter

FUNDS_MINOR = 1_000_000
REQUEST_LIFE_SECONDS = 600


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Fault:
    """Dies at one step: the n-th call, before or after its effect; -1 for never."""

    step: int = -1
    after: bool = False
    seen: int = 0

    async def around(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do the work, or die."""
        here = self.seen == self.step
        self.seen += 1
        if here and not self.after:
            raise Crash
        result = await work()
        if here:
            raise Crash
        return result


class Breaking:
    """Any part whose public coroutines pass through a fault."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        """Return a method of the part, behind the fault."""
        method = getattr(self._inner, name)

        async def call(*arguments: Any, **named: Any) -> Any:
            return await self._fault.around(lambda: method(*arguments, **named))

        return call


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
    """What the played channel did, by reference."""

    charged: dict[str, int] = field(default_factory=dict)
    refunded: dict[str, int] = field(default_factory=dict)


class PlayedChannel(ChannelServiceServicer):  # type: ignore[misc]
    """A channel: cards at once, QR codes when asked; a repeat never executes twice."""

    def __init__(self, bank: Bank) -> None:
        self._bank = bank

    async def Charge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take the money."""
        self._bank.charged.setdefault(request.reference, request.amount.amount_minor)
        state = CHARGE_STATE_SUCCEEDED
        if request.product == "qr_pay":
            state = CHARGE_STATE_PENDING
        charge = Charge(reference=request.reference, state=state, qr_content="qr")
        return ChargeResponse(charge=charge)

    async def QueryCharge(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say that it was paid, if it was ever asked for."""
        if request.reference not in self._bank.charged:
            raise NotFoundError(resource="charge")
        charge = Charge(reference=request.reference, state=CHARGE_STATE_SUCCEEDED)
        return QueryChargeResponse(charge=charge)

    async def Refund(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Give the money back."""
        assert request.charge_reference in self._bank.charged
        self._bank.refunded.setdefault(request.reference, request.amount.amount_minor)
        refund = ChannelRefund(reference=request.reference, state=CHANNEL_REFUND_STATE_SUCCEEDED)
        return RefundResponse(refund=refund)

    async def QueryRefund(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Say what was given back."""
        if request.reference not in self._bank.refunded:
            raise NotFoundError(resource="refund")
        refund = ChannelRefund(reference=request.reference, state=CHANNEL_REFUND_STATE_SUCCEEDED)
        return QueryRefundResponse(refund=refund)


for _played in (PlayedRisk, PlayedChannel):
    _played.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@dataclass
class PaymentKit:
    """Payment's parts, honest or breaking, and what lies under them."""

    kit: HostedKit
    bank: Bank
    merchant_id: str
    user_id: str
    number: int = 0

    def parts(self, fault: Fault | None = None) -> Parts:
        """Return parts that die where the fault says."""
        pool = self.kit.pools["payment"]
        outbox, jobs = Outbox(), Jobs()
        exceptions: Any = ExceptionStore(pool, outbox, jobs, Announcements())
        store: Any = PaymentStore(pool, outbox, jobs, exceptions)
        refunds: Any = RefundStore(pool, outbox, jobs, exceptions)
        writer: Any = PaymentWriter(store, 16)
        peers: Any = Peers(
            **{
                name: self.kit.channel("payment", name)
                for name in ("trade", "routing", "risk", "account", "channel")
            }
        )
        if fault is not None:
            writer, peers = Breaking(writer, fault), Breaking(peers, fault)
            store, refunds = _BreakingStore(store, fault), _BreakingStore(refunds, fault)
            exceptions = _BreakingStore(exceptions, fault)
        products = {name: found.plugin for name, found in PRODUCTS.items()}
        settings = PaymentSettings(request_life_seconds=REQUEST_LIFE_SECONDS)
        return Parts(store, refunds, exceptions, writer, peers, self.kit.clock, settings, products)

    def call(self) -> Any:
        """Return the merchant's circumstances."""
        return merchant_call(self.merchant_id)

    def account(self, owner: str, kind: str) -> str:
        """Return the id of an account in USD."""
        return account_id_for(owner, kind, "USD", tenant_id="default", mode="TEST")

    async def new_order(self, amount_minor: int) -> Order:
        """Make an order of the user."""
        self.number += 1
        stub = TradeServiceStub(self.kit.channel("edge", "trade"))
        with bound(self.call()):
            answer = await stub.CreateOrder(
                CreateOrderRequest(
                    request_id=f"order-{self.number}",
                    merchant_order_no=f"order-{self.number}",
                    amount=Money(currency_code="USD", amount_minor=amount_minor),
                    user_id=self.user_id,
                )
            )
        return answer.order

    async def balance(self, owner: str, kind: str) -> int:
        """Return what an account has available, in minor units."""
        stub = AccountServiceStub(self.kit.channel("payment", "account"))
        with bound(self.call()):
            answer = await stub.GetAccounts(GetAccountsRequest(ids=[self.account(owner, kind)]))
        return sum(account.balance.available_minor for account in answer.accounts)

    async def movements(self, reference_id: str) -> dict[str, list[int]]:
        """Return what was booked for a noun: movement → amounts."""
        rows = await self.kit.rows(
            "account",
            "SELECT movement, booked_minor FROM transfers"
            " WHERE reference_id = $1 AND status = 'BOOKED' ORDER BY movement",
            reference_id,
        )
        found: dict[str, list[int]] = {}
        for row in rows:
            found.setdefault(row["movement"], []).append(row["booked_minor"])
        return found

    async def empty_merchant(self) -> int:
        """Take everything that the merchant has; return how much it was."""
        amount = await self.balance(self.merchant_id, "merchant_pending")
        merchant = self.account(self.merchant_id, "merchant_pending")
        await self.move(merchant, self.account("bank", "channel_receivable"), amount)
        return amount

    async def fill_merchant(self, amount_minor: int) -> None:
        """Give the merchant money."""
        merchant = self.account(self.merchant_id, "merchant_pending")
        await self.move(self.account("bank", "channel_receivable"), merchant, amount_minor)

    async def move(self, debit: str, credit: str, amount_minor: int) -> None:
        """Book one transfer."""
        stub = AccountServiceStub(self.kit.channel("payment", "account"))
        transfer = TransferSpec(
            id=self.kit.ids.new("tfr"),
            kind=TRANSFER_KIND_SINGLE,
            debit_account_id=debit,
            credit_account_id=credit,
            currency_code="USD",
            amount_minor=amount_minor,
            movement="test.move",
            reference_id="test",
        )
        with bound(self.call()):
            answer = await stub.CreateTransfers(CreateTransfersRequest(transfers=[transfer]))
        assert answer.results[0].status == TRANSFER_STATUS_BOOKED

    async def check_books(self) -> None:
        """Compare every account with its entries and holds."""
        report = await ReadingStore(self.kit.pools["account"]).check()
        assert report.findings == ()


class _BreakingStore:
    """A store, whose single writes pass through the fault; reads do not."""

    def __init__(self, inner: Any, fault: Fault) -> None:
        self._inner = inner
        self._fault = fault

    def __getattr__(self, name: str) -> Any:
        if name in ("open_refund", "save_refund", "open_exceptions", "save_exception"):
            return getattr(Breaking(self._inner, self._fault), name)
        return getattr(self._inner, name)


@pytest.fixture(scope="module")
async def payment(database_url: str) -> AsyncIterator[PaymentKit]:
    """Payment with one merchant and one user, whose wallet is full."""
    bank = Bank()
    wirings = [
        services.account.wiring,
        services.settlement.wiring,
        services.routing.wiring,
        services.trade.wiring,
        services.payment.wiring,
    ]
    plays = {
        "risk": partial(add_RiskServiceServicer_to_server, PlayedRisk()),
        "channel": partial(add_ChannelServiceServicer_to_server, PlayedChannel(bank)),
    }
    async with hosting(database_url, wirings, plays) as kit:
        made = PaymentKit(kit, bank, kit.ids.new("mer"), kit.ids.new("usr"))
        stub = AccountServiceStub(kit.channel("payment", "account"))
        owners = [
            (made.user_id, "user_available"),
            (made.merchant_id, "merchant_pending"),
            (made.merchant_id, "merchant_settled"),
            ("bank", "channel_receivable"),
        ]
        with bound(made.call()):
            await stub.OpenAccounts(
                OpenAccountsRequest(
                    accounts=[
                        AccountSpec(
                            id=made.account(owner, kind),
                            owner_id=owner,
                            kind=kind,
                            currency_code="USD",
                            merchant_id="" if owner == "bank" else made.merchant_id,
                        )
                        for owner, kind in owners
                    ]
                )
            )
        bank_account = made.account("bank", "channel_receivable")
        await made.move(bank_account, made.account(made.user_id, "user_available"), FUNDS_MINOR)
        yield made
