"""Payment on the real ledger, trade, routing and settlement; risk and the channel are played.

`Breaking` parts die at a step of one's choice, before or after it had its
effect, as a process does: what they raise is caught by no flow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from dying_parts import Breaking, Crash, Fault
from hosted_services import HostedKit, heard, hosting, merchant_call
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
    ChannelRefund,
    ChannelRefundChanged,
    add_ChannelServiceServicer_to_server,
)
from paymesh.risk.v1 import (
    add_RiskServiceServicer_to_server,
)
from paymesh.trade.v1 import CreateOrderRequest, Order, TradeServiceStub
from paymesh.type.v1 import Money
from played_parties import Bank, PlayedChannel, PlayedRisk

import services.account.wiring
import services.payment.wiring
import services.routing.wiring
import services.settlement.wiring
import services.trade.wiring
from common.context import bound
from common.events.event import NewEvent
from common.events.outbox import Outbox
from common.jobs.job import JobKind
from common.jobs.jobs import Jobs
from common.jobs.worker import Worker
from services.account.store.reading import ReadingStore
from services.payment.config import PaymentSettings
from services.payment.events import Announcements, ChannelNews
from services.payment.flows.janitor import Janitor
from services.payment.flows.parts import Parts
from services.payment.peers import Peers
from services.payment.products import PRODUCTS
from services.payment.store.exceptions import ExceptionStore
from services.payment.store.payments import PaymentStore
from services.payment.store.refunds import RefundStore
from services.payment.store.rows import ADVANCE_PAYMENT, ADVANCE_REFUND, CARRY_OUT
from services.payment.writer import PaymentWriter

__all__ = ["Crash", "Fault", "PaymentKit", "payment"]

FUNDS_MINOR = 1_000_000
REQUEST_LIFE_SECONDS = 600
DUE_SECONDS = 60
UNKNOWN_SECONDS = 900
REPEATS_MAX = 2
_ROUNDS_MAX = 40


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
        settings = PaymentSettings(
            request_life_seconds=REQUEST_LIFE_SECONDS,
            exception_due_seconds=DUE_SECONDS,
            exception_repeats_max=REPEATS_MAX,
            unknown_exception_seconds=UNKNOWN_SECONDS,
        )
        return Parts(store, refunds, exceptions, writer, peers, self.kit.clock, settings, products)

    def call(self) -> Any:
        """Return the merchant's circumstances."""
        return merchant_call(self.merchant_id)

    async def run_due(self, seconds: float = 0, fault: Fault | None = None) -> None:
        """Let time pass, and the jobs that are due by then run."""
        self.kit.clock.ahead += timedelta(seconds=seconds)
        janitor = Janitor(self.parts(fault))
        kinds = {
            ADVANCE_PAYMENT: JobKind(janitor.ask_about_payment, attempts_max=None),
            ADVANCE_REFUND: JobKind(janitor.ask_about_refund, attempts_max=None),
            CARRY_OUT: JobKind(janitor.carry_out_exception, attempts_max=None),
        }
        worker = Worker(self.kit.pools["payment"], Jobs(), kinds, service="payment")
        await worker.run_due(self.kit.clock.now())

    async def hear_of_refund(self, refund_id: str) -> None:
        """Let payment hear that its channel has news of a refund, twice, as it may come."""
        parts = self.parts()
        news = ChannelNews(
            Jobs(), parts.exceptions, parts.store, parts.refunds, parts.deadlines, self.kit.clock
        )
        event = NewEvent(
            event_id=self.kit.ids.new("evt"),
            type="channel.refund.changed.v1",
            aggregate_id=refund_id,
            aggregate_version=1,
            payload=ChannelRefundChanged(
                refund=ChannelRefund(subject_id=refund_id)
            ).SerializeToString(),
            principal=self.call().principal,
            occurred_at=self.kit.clock.now(),
        )
        consumer = self.kit.consumer("payment", "payment.channel", news.handle)
        await consumer.handle([heard(event)])
        await consumer.handle([heard(event)])

    async def unfinished(self) -> list[tuple[str, str]]:
        """Return what has not ended in payment, as (noun, state)."""
        rows = await self.kit.rows(
            "payment",
            """
            SELECT 'payment' AS noun, state FROM payments
            WHERE state NOT IN ('SUCCEEDED', 'FAILED', 'CLOSED', 'RETURNED', 'UNCLAIMED')
            UNION ALL SELECT 'refund', state FROM refunds
            WHERE state NOT IN ('SUCCEEDED', 'FAILED')
            UNION ALL SELECT kind, state FROM exceptions WHERE state <> 'RESOLVED'
            UNION ALL SELECT kind, state FROM jobs WHERE state IN ('OPEN', 'PARKED')
            """,
        )
        return [(row["noun"], row["state"]) for row in rows]

    async def bring_to_rest(self) -> None:
        """Let the janitor and the desk's deadlines work until nothing is open any more."""
        for number in range(_ROUNDS_MAX):
            await self.run_due(35 + 30 * number)
            left = {noun for noun, _ in await self.unfinished()}
            if not left:
                return
            if left <= {ADVANCE_PAYMENT, ADVANCE_REFUND}:
                # What was let fail is asked about until somebody answers.
                self.bank.is_silent = self.bank.is_mute = False
        pytest.fail(f"still open: {await self.unfinished()}")

    async def exceptions(self, subject_id: str) -> list[dict[str, Any]]:
        """Return the exceptions about a subject, oldest first."""
        return await self.kit.rows(
            "payment",
            "SELECT id, kind, state, version, action, maker, checker, resolution, detail,"
            " default_action, repeats FROM exceptions WHERE subject_id = $1"
            " ORDER BY created_at, id",
            subject_id,
        )

    async def check_everything(self) -> None:
        """Nothing is on its way, the channel owes what the books say, and the books hold."""
        assert await self.balance("platform", "payment_transit") == 0
        assert await self.balance("platform", "refund_transit") == 0
        for currency in ("USD", "EUR"):
            rows = await self.kit.rows(
                "account",
                "SELECT coalesce(sum(debits_posted_minor - credits_posted_minor), 0)::bigint AS s"
                " FROM accounts WHERE kind = 'channel_receivable' AND owner_id <> 'bank'"
                " AND currency_code = $1",
                currency,
            )
            assert rows[0]["s"] == self.bank.owes(currency), currency
            for kind in ("suspense", "payment_transit"):
                assert await self.balance("platform", kind, currency) == 0, (kind, currency)
        holds = await self.kit.rows(
            "account",
            "SELECT id FROM accounts WHERE debits_pending_minor <> 0 OR credits_pending_minor <> 0",
        )
        assert holds == []
        await self.check_books()

    def account(self, owner: str, kind: str, currency_code: str = "USD") -> str:
        """Return the id of an account."""
        return account_id_for(owner, kind, currency_code, tenant_id="default", mode="TEST")

    async def new_order(self, amount_minor: int, **more: Any) -> Order:
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
                    **more,
                )
            )
        return answer.order

    async def balance(self, owner: str, kind: str, currency_code: str = "USD") -> int:
        """Return what an account has available, in minor units."""
        stub = AccountServiceStub(self.kit.channel("payment", "account"))
        ids = [self.account(owner, kind, currency_code)]
        with bound(self.call()):
            answer = await stub.GetAccounts(GetAccountsRequest(ids=ids))
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

    async def open_account(self, owner: str, kind: str, currency_code: str) -> None:
        """Open one more account."""
        stub = AccountServiceStub(self.kit.channel("payment", "account"))
        account = AccountSpec(
            id=self.account(owner, kind, currency_code),
            owner_id=owner,
            kind=kind,
            currency_code=currency_code,
        )
        with bound(self.call()):
            await stub.OpenAccounts(OpenAccountsRequest(accounts=[account]))

    async def move(
        self, debit: str, credit: str, amount_minor: int, currency_code: str = "USD"
    ) -> None:
        """Book one transfer."""
        stub = AccountServiceStub(self.kit.channel("payment", "account"))
        transfer = TransferSpec(
            id=self.kit.ids.new("tfr"),
            kind=TRANSFER_KIND_SINGLE,
            debit_account_id=debit,
            credit_account_id=credit,
            currency_code=currency_code,
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
