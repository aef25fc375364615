"""Calls to other services, in and out as domain types; failures arrive as PaymeshError."""

from __future__ import annotations

from typing import Final

import grpc.aio
from paymesh.account.v1 import (
    AccountServiceStub,
    GetBusinessDateRequest,
    GetOwnerBalancesRequest,
)
from paymesh.payment.v1 import (
    ClosePaymentsRequest,
    ListPaymentsRequest,
    PaymentRefund,
    PaymentServiceStub,
    RefundPaymentRequest,
)
from paymesh.settlement.v1 import GetFeePlanRequest, SettlementServiceStub
from paymesh.type.v1 import Money as MoneyMessage

from common.errors import Outcome, PaymeshError, RemoteError, Retry, UnavailableError
from common.money import Money
from services.trade.convert import refund_news
from services.trade.domain import FeePlan, Refund, RefundNews, RefundState
from services.trade.fee_plans import QuotedPlan

# What says something of the way to payment and not of the refund: asked again, never an end.
_OF_THE_WAY: Final = frozenset(
    {
        "INTERNAL",
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "OVERLOADED",
        "DEADLINE_EXCEEDED",
        "UNAVAILABLE",
        "CANCELLED",
        "METHOD_UNKNOWN",
        "MESSAGE_TOO_LARGE",
        "MESSAGE_MALFORMED",
    }
)


def reason_of(error: PaymeshError) -> str:
    """Return the reason of a failed call, whoever said it."""
    return error.remote_reason if isinstance(error, RemoteError) else error.reason


class Peers:
    """The services that trade calls."""

    def __init__(
        self,
        *,
        payment: grpc.aio.Channel,
        settlement: grpc.aio.Channel,
        account: grpc.aio.Channel,
    ) -> None:
        self._payment = PaymentServiceStub(payment)
        self._settlement = SettlementServiceStub(settlement)
        self._account = AccountServiceStub(account)

    async def find_fee_plan(self, merchant_id: str) -> QuotedPlan:
        """Return what a merchant pays; raises UnavailableError when it is not to be had."""
        try:
            answer = await self._settlement.GetFeePlan(GetFeePlanRequest(merchant_id=merchant_id))
        except PaymeshError as error:
            raise _nothing_done("settlement") from error
        plan = FeePlan(answer.plan.rate_ppm, answer.plan.returned_on_refund)
        return QuotedPlan(plan, answer.ttl_seconds)

    async def find_wallet_currencies(self, user_id: str) -> frozenset[str]:
        """Return the currencies of a user's wallet; empty when the merchant has no such user."""
        try:
            answer = await self._account.GetOwnerBalances(GetOwnerBalancesRequest(owner_id=user_id))
        except PaymeshError as error:
            if reason_of(error) == "NOT_FOUND":
                return frozenset()
            raise _nothing_done("account") from error
        return frozenset(balance.available.currency_code for balance in answer.balances)

    async def find_business_date(self) -> str:
        """Return the ledger's business date; raises UnavailableError when it is not to be had."""
        try:
            answer = await self._account.GetBusinessDate(GetBusinessDateRequest())
        except PaymeshError as error:
            raise _nothing_done("account") from error
        return answer.business_date

    async def look_at_payments(self, order_id: str) -> None:
        """Read the payments of an order, which makes payment ask about those that are open."""
        await self._payment.ListPayments(ListPaymentsRequest(order_id=order_id))

    async def close_payments(self, order_id: str) -> bool:
        """Ask that every open payment of an order be closed; False while one may still succeed."""
        answer = await self._payment.ClosePayments(ClosePaymentsRequest(order_id=order_id))
        return answer.closed

    async def refund_payment(self, refund: Refund) -> RefundNews | None:
        """Ask payment to give money back; None while it works on it.

        A refusal is news. Raises PaymeshError when nobody knows: the same call may be repeated.
        """
        try:
            answer = await self._payment.RefundPayment(
                RefundPaymentRequest(
                    refund_id=refund.id,
                    payment_id=refund.payment_id,
                    amount=MoneyMessage(
                        currency_code=refund.currency_code, amount_minor=refund.amount_minor
                    ),
                    reason=refund.reason,
                )
            )
        except PaymeshError as error:
            if not _is_refusal(error):
                raise
            return RefundNews(
                refund.id,
                RefundState.FAILED,
                Money(refund.currency_code, refund.amount_minor),
                failure_reason=reason_of(error),
                cause="RefundPayment",
            )
        return _news(answer.refund)


def _news(message: PaymentRefund) -> RefundNews | None:
    return refund_news(message, "RefundPayment")


def _is_refusal(error: PaymeshError) -> bool:
    return (
        error.outcome is Outcome.NOT_EXECUTED
        and error.retry in (Retry.NEVER, Retry.NEW_ID)
        and reason_of(error) not in _OF_THE_WAY
    )


def _nothing_done(target: str) -> UnavailableError:
    # These questions are asked before anything is written.
    return UnavailableError(target=target, outcome=Outcome.NOT_EXECUTED, retry=Retry.SAME_ID)
