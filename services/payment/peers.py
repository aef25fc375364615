"""Calls to other services, in and out as domain types.

Every mutation carries an id that was stored before, so each of these may be repeated after a crash.
Failures arrive as PaymeshError with their outcome; a decline and a refusal for funds are answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp
from grpc.aio import Channel
from paymesh.account import PLATFORM_OWNER, account_id_for
from paymesh.account.v1 import (
    TRANSFER_STATUS_BOOKED,
    AccountServiceStub,
    AccountSpec,
    CreateTransfersRequest,
    OpenAccountsRequest,
    TransferKind,
    TransferSpec,
)
from paymesh.channel.v1 import (
    CallbackFinding,
    ChannelServiceStub,
    ChargeRequest,
    CloseChargeRequest,
    ExamineCallbackRequest,
    QueryChargeRequest,
    QueryRefundRequest,
    RefundRequest,
)
from paymesh.risk.v1 import (
    AssessActionRequest,
    ResolveReservationRequest,
    RiskServiceStub,
    Verdict,
)
from paymesh.routing.v1 import ChooseChannelRequest, RoutingServiceStub
from paymesh.trade.v1 import (
    ClaimOrderRequest,
    GetOrderRequest,
    TradeServiceStub,
)

from common.errors import (
    NotFoundError,
    Outcome,
    PaymeshError,
    RemoteError,
    Retry,
    UnavailableError,
)
from common.ids import channel_reference
from common.money import Money
from services.payment.convert import (
    charge_news_from_proto,
    give_back_news_from_proto,
    money_to_proto,
    order_from_proto,
)
from services.payment.domain.payments import (
    Assessment,
    ChargeNews,
    Failure,
    GiveBackNews,
    Order,
    Payment,
    Route,
    refund_reference,
)
from services.payment.domain.postings import Booked, Chain, Refused
from services.payment.errors import ChannelNotEligibleError

# With these the channel refuses to give back, or its service does before it has stored anything.
_REFUSALS: Final = frozenset(
    {
        "DECLINED",
        "CHANNEL_INVALID",
        "REFUND_EXCEEDS_PAYMENT",
        "STATE_CONFLICT",
        "CURRENCY_MISMATCH",
        "CURRENCY_UNKNOWN",
        "AMOUNT_OUT_OF_RANGE",
    }
)

# Account kinds of the platform that a payment or refund touches, when all goes well or not.
_PLATFORM_KINDS: Final = ("payment_transit", "refund_transit", "platform_fee", "suspense")


def reason_of(error: PaymeshError) -> str:
    """Return the reason of a failed call, whoever said it."""
    return error.remote_reason if isinstance(error, RemoteError) else error.reason


class Peers:
    """The services that payment calls."""

    def __init__(
        self, *, trade: Channel, routing: Channel, risk: Channel, account: Channel, channel: Channel
    ) -> None:
        self._trade = TradeServiceStub(trade)
        self._routing = RoutingServiceStub(routing)
        self._risk = RiskServiceStub(risk)
        self._account = AccountServiceStub(account)
        self._channel = ChannelServiceStub(channel)
        self._open: set[str] = set()

    async def get_order(self, order_id: str) -> Order:
        """Return an order.

        Raises:
            NotFoundError: there is none that the caller may see.
            UnavailableError: trade cannot be asked; nothing was begun.
        """
        try:
            message = (await self._trade.GetOrder(GetOrderRequest(order_id=order_id))).order
        except PaymeshError as error:
            if reason_of(error) == "NOT_FOUND":
                raise NotFoundError(resource="order") from error
            raise _nothing_begun("trade") from error
        return order_from_proto(message)

    async def claim_order(self, payment: Payment) -> bool:
        """Ask that a payment wins its order; True when it did, now or before."""
        answer = await self._trade.ClaimOrder(
            ClaimOrderRequest(order_id=payment.order_id, payment_id=payment.id)
        )
        return answer.won

    async def choose_channel(
        self, payment_id: str, product: str, amount: Money, bank_code: str, excluded: Sequence[str]
    ) -> Route:
        """Return the channels that may carry a payment, best first.

        Raises:
            ChannelNotEligibleError: none may.
            UnavailableError: routing cannot be asked; nothing was begun.
        """
        request = ChooseChannelRequest(
            payment_id=payment_id,
            product=product,
            amount=money_to_proto(amount),
            bank_code=bank_code,
            excluded_channels=excluded,
        )
        try:
            answer = await self._routing.ChooseChannel(request)
        except PaymeshError as error:
            if reason_of(error) == "CHANNEL_NOT_ELIGIBLE":
                raise ChannelNotEligibleError(product=product, why=error.message) from error
            raise _nothing_begun("routing") from error
        return Route(
            tuple((candidate.channel, candidate.reason) for candidate in answer.candidates),
            {rejection.channel: rejection.reason for rejection in answer.rejections},
        )

    async def assess(self, payment: Payment, action: str) -> Assessment:
        """Ask risk about a payment; reserves what it uses of the limits.

        Raises:
            UnavailableError: risk cannot be asked; what it may have reserved lapses by itself.
        """
        request = AssessActionRequest(
            action_id=payment.id,
            action=action,
            amount=money_to_proto(payment.amount),
            product=payment.product,
            user_id=payment.user_id,
            card_id=payment.card_id,
            client_ip=payment.client_ip,
            device_id=payment.device_id,
        )
        try:
            answer = await self._risk.AssessAction(request)
        except PaymeshError as error:
            raise _nothing_begun("risk") from error
        return Assessment(
            Verdict.Name(answer.verdict).removeprefix("VERDICT_"), tuple(answer.rules)
        )

    async def release_reservation(self, payment_id: str) -> None:
        """Give back what was reserved for a payment that is never written."""
        await self._risk.ResolveReservation(
            ResolveReservationRequest(action_id=payment_id, confirmed=False)
        )

    async def open_platform_accounts(
        self, payment: Payment, currency_code: str = "", *more_kinds: str
    ) -> None:
        """Open the platform's accounts that a payment needs; a no-op after the first time.

        They are in the payment's own currency, unless another one came in.
        """
        specs = []
        owner = payment.owner
        currency = currency_code or payment.amount.currency_code
        wanted = [(PLATFORM_OWNER, kind) for kind in (*_PLATFORM_KINDS, *more_kinds)]
        if payment.channel and not payment.is_internal:
            wanted.append((payment.channel, "channel_receivable"))
        for owner_id, kind in wanted:
            account_id = account_id_for(
                owner_id,
                kind,
                currency,
                tenant_id=owner.tenant_id,
                mode=owner.mode,
            )
            if account_id not in self._open:
                specs.append(
                    AccountSpec(
                        id=account_id,
                        owner_id=owner_id,
                        kind=kind,
                        currency_code=currency,
                    )
                )
        if specs:
            await self._account.OpenAccounts(OpenAccountsRequest(accounts=specs))
            self._open.update(spec.id for spec in specs)

    async def post(self, chain: Chain, currency_code: str) -> Booked | Refused:
        """Book a chain: all of it or nothing; a repeat gets the first answer."""
        if not chain:
            return Booked("")
        answer = await self._account.CreateTransfers(
            CreateTransfersRequest(
                transfers=[
                    TransferSpec(
                        id=posting.id,
                        kind=TransferKind.Value(f"TRANSFER_KIND_{posting.kind}"),
                        debit_account_id=posting.debit_account_id,
                        credit_account_id=posting.credit_account_id,
                        currency_code=currency_code if posting.debit_account_id else "",
                        amount_minor=posting.amount_minor,
                        pending_id=posting.pending_id,
                        linked=position < len(chain) - 1,
                        movement=posting.movement,
                        reference_id=posting.reference_id,
                    )
                    for position, posting in enumerate(chain)
                ]
            )
        )
        refusals = [r.reason for r in answer.results if r.status != TRANSFER_STATUS_BOOKED]
        if not refusals:
            return Booked(answer.results[0].business_date)
        culprits = [reason for reason in refusals if reason != "LINKED_TRANSFER_FAILED"]
        return Refused((culprits or refusals)[0])

    async def charge(self, payment: Payment) -> ChargeNews:
        """Ask the payment's channel to take the money.

        A decline is news. Raises PaymeshError with NOT_EXECUTED when the channel surely did
        nothing; anything doubtful is the news UNKNOWN.
        """
        expires_at = Timestamp()
        expires_at.FromDatetime(payment.expires_at)
        try:
            answer = await self._channel.Charge(
                ChargeRequest(
                    reference=channel_reference(payment.attempt_id),
                    channel=payment.channel,
                    payment_id=payment.id,
                    amount=money_to_proto(payment.amount),
                    product=payment.product,
                    card_id=payment.card_id,
                    subject=payment.subject,
                    expires_at=expires_at,
                    client_ip=payment.client_ip,
                )
            )
        except PaymeshError as error:
            if reason_of(error) == "DECLINED":
                return ChargeNews("FAILED", failure=_decline(error))
            if error.outcome is Outcome.NOT_EXECUTED:
                raise
            return ChargeNews("UNKNOWN")
        return charge_news_from_proto(answer.charge)

    async def query_charge(self, payment: Payment) -> ChargeNews:
        """Ask the channel what became of the present attempt."""
        try:
            answer = await self._channel.QueryCharge(
                QueryChargeRequest(reference=channel_reference(payment.attempt_id))
            )
        except PaymeshError as error:
            if reason_of(error) == "NOT_FOUND":
                return ChargeNews("NEVER_ASKED")
            raise
        return charge_news_from_proto(answer.charge)

    async def close_charge(self, payment: Payment) -> ChargeNews:
        """Ask the channel to close the present attempt; it may turn out to be paid."""
        try:
            answer = await self._channel.CloseCharge(
                CloseChargeRequest(reference=channel_reference(payment.attempt_id))
            )
        except PaymeshError as error:
            if reason_of(error) == "NOT_FOUND":
                return ChargeNews("NEVER_ASKED")
            raise
        return charge_news_from_proto(answer.charge)

    async def refund(
        self, payment: Payment, noun_id: str, amount: Money, words: str, attempt: int = 1
    ) -> GiveBackNews:
        """Ask the channel to give money back; a repeat of an attempt never executes twice.

        A refusal is FAILED: nothing has moved under this reference. Anything doubtful is UNKNOWN.
        """
        try:
            answer = await self._channel.Refund(
                RefundRequest(
                    reference=refund_reference(noun_id, attempt),
                    charge_reference=channel_reference(payment.attempt_id),
                    amount=money_to_proto(amount),
                    reason=words,
                    subject_id=noun_id,
                )
            )
        except PaymeshError as error:
            reason = reason_of(error)
            if reason == "ID_CONFLICT":
                return GiveBackNews("OTHER")
            if reason in _REFUSALS and error.outcome is Outcome.NOT_EXECUTED:
                return GiveBackNews("FAILED", error.metadata.get("raw_code", ""), reason)
            return GiveBackNews("UNKNOWN")
        return give_back_news_from_proto(answer.refund, amount)

    async def query_refund(self, noun_id: str, amount: Money, attempt: int = 1) -> GiveBackNews:
        """Ask the channel what became of an attempt to give money back; no answer is UNKNOWN."""
        try:
            return await self.ask_refund(noun_id, amount, attempt)
        except PaymeshError:
            return GiveBackNews("UNKNOWN")

    async def ask_refund(self, noun_id: str, amount: Money, attempt: int = 1) -> GiveBackNews:
        """The same, for who has to come back; raises PaymeshError when nobody answers."""
        try:
            answer = await self._channel.QueryRefund(
                QueryRefundRequest(reference=refund_reference(noun_id, attempt))
            )
        except PaymeshError as error:
            if reason_of(error) == "NOT_FOUND":
                return GiveBackNews("NOT_FOUND")
            raise
        return give_back_news_from_proto(answer.refund, amount)

    async def examine_callback(self, callback_id: str) -> tuple[str, str, str]:
        """Let the channel be asked about a questioned callback.

        Returns the name of a `CallbackFinding` without its prefix, the channel's answer in words,
        and the payment or refund that it is about, empty for none. Raises PaymeshError when nobody
        answers.
        """
        answer = await self._channel.ExamineCallback(
            ExamineCallbackRequest(callback_id=callback_id)
        )
        finding = CallbackFinding.Name(answer.finding).removeprefix("CALLBACK_FINDING_")
        return finding, answer.detail, answer.subject_id


def _nothing_begun(target: str) -> UnavailableError:
    """Return what a caller is told when a peer fails before the intent: no money has moved."""
    return UnavailableError(target=target, outcome=Outcome.NOT_EXECUTED, retry=Retry.SAME_ID)


class AccountNames:
    """(owner, kind) → account id, in one payment's tenant and mode, and one currency."""

    def __init__(self, payment: Payment, currency_code: str = "") -> None:
        self._owner = payment.owner
        self._currency_code = currency_code or payment.amount.currency_code

    def __call__(self, owner_id: str, kind: str) -> str:
        """Return the id of an account."""
        return account_id_for(
            owner_id,
            kind,
            self._currency_code,
            tenant_id=self._owner.tenant_id,
            mode=self._owner.mode,
        )


def _decline(error: PaymeshError) -> Failure:
    metadata = error.metadata
    return Failure(
        "DECLINED",
        metadata.get("code", ""),
        metadata.get("raw_code", ""),
        metadata.get("advice", ""),
    )
