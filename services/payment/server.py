"""The servicer of payment: converts, calls a flow, converts back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import grpc.aio
from paymesh.payment.v1 import (
    ClosePaymentsRequest,
    ClosePaymentsResponse,
    CreatePaymentRequest,
    CreatePaymentResponse,
    DecideResolutionRequest,
    DecideResolutionResponse,
    GetExceptionRequest,
    GetExceptionResponse,
    GetPaymentRequest,
    GetPaymentResponse,
    ListExceptionsRequest,
    ListExceptionsResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListPaymentsRequest,
    ListPaymentsResponse,
    ListStoryRequest,
    ListStoryResponse,
    PaymentServiceServicer,
    ProposeResolutionRequest,
    ProposeResolutionResponse,
    RefundPaymentRequest,
    RefundPaymentResponse,
)

from common.context import ActorType, Principal, current
from common.errors import NotFoundError
from common.money import Money
from common.paging import PageTokens
from services.payment.convert import exception_to_proto, payment_to_proto, refund_to_proto
from services.payment.domain.payments import Payment
from services.payment.flows.ask_on_read import Readers
from services.payment.flows.close_payments import close_payments
from services.payment.flows.create_payment import NewPayment, create_payment
from services.payment.flows.desk import (
    decide_resolution,
    propose_resolution,
    visible_exception,
)
from services.payment.flows.parts import Parts
from services.payment.flows.refund_payment import refund_payment
from services.payment.store.exceptions import ExceptionPage
from services.payment.store.reading import ReadingStore
from services.payment.story import list_facts, list_story

_EXCEPTIONS_PAGE: Final = 100
_BEFORE_ALL: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PaymentServicer(PaymentServiceServicer):
    """`paymesh.payment.v1.PaymentService`."""

    def __init__(
        self, parts: Parts, reading: ReadingStore, readers: Readers, tokens: PageTokens
    ) -> None:
        self._parts = parts
        self._reading = reading
        self._readers = readers
        self._tokens = tokens

    async def CreatePayment(  # noqa: N802 - named by the contract
        self, request: CreatePaymentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CreatePaymentResponse:
        """Pay an order."""
        asked = NewPayment(
            request_id=request.request_id,
            order_id=request.order_id,
            product=request.product,
            card_id=request.card_id,
            bank_code=request.bank_code,
            return_url=request.return_url,
            client_ip=request.client_ip,
            device_id=request.device_id,
        )
        payment = await create_payment(self._parts, asked, current())
        return CreatePaymentResponse(payment=payment_to_proto(payment))

    async def GetPayment(  # noqa: N802 - named by the contract
        self, request: GetPaymentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetPaymentResponse:
        """Read a payment."""
        payment = await self._visible(request.payment_id)
        self._readers.note(payment)
        return GetPaymentResponse(payment=payment_to_proto(payment))

    async def ListPayments(  # noqa: N802 - named by the contract
        self, request: ListPaymentsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListPaymentsResponse:
        """List the payments of an order."""
        principal = current().principal
        payments = await self._parts.store.find_payments_of_order(request.order_id)
        visible = [payment for payment in payments if _may_see(principal, payment)]
        for payment in visible:
            self._readers.note(payment)
        return ListPaymentsResponse(payments=[payment_to_proto(p) for p in visible])

    async def RefundPayment(  # noqa: N802 - named by the contract
        self, request: RefundPaymentRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> RefundPaymentResponse:
        """Give money back."""
        refund = await refund_payment(
            self._parts,
            request.refund_id,
            request.payment_id,
            Money(request.amount.currency_code, request.amount.amount_minor),
            request.reason,
            current(),
        )
        return RefundPaymentResponse(refund=refund_to_proto(refund))

    async def ClosePayments(  # noqa: N802 - named by the contract
        self, request: ClosePaymentsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ClosePaymentsResponse:
        """Close the open payments of an order."""
        return ClosePaymentsResponse(closed=await close_payments(self._parts, request.order_id))

    async def ListExceptions(  # noqa: N802 - named by the contract
        self, request: ListExceptionsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListExceptionsResponse:
        """List what waits for a decision, oldest deadline first."""
        principal = current().principal
        filters = {
            "tenant": principal.tenant_id,
            "mode": principal.mode,
            "kind": request.kind,
            "resolved": str(request.include_resolved),
        }
        position = self._tokens.read("payment.exceptions", request.page_token, filters)
        after = (_BEFORE_ALL, "")
        if position:
            after = (datetime.fromisoformat(str(position[0])), str(position[1]))
        size = request.page_size or _EXCEPTIONS_PAGE
        found = await self._parts.exceptions.list_exceptions(
            ExceptionPage(
                principal.tenant_id,
                str(principal.mode),
                request.kind,
                request.include_resolved,
                after,
                size + 1,
            )
        )
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = self._tokens.issue(
                "payment.exceptions", [last.due_at.isoformat(), last.id], filters
            )
        return ListExceptionsResponse(
            exceptions=[exception_to_proto(one) for one in found[:size]], next_page_token=token
        )

    async def GetException(  # noqa: N802 - named by the contract
        self, request: GetExceptionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetExceptionResponse:
        """Read an exception."""
        principal = current().principal
        found = await visible_exception(self._parts, request.exception_id, principal)
        return GetExceptionResponse(exception=exception_to_proto(found))

    async def ProposeResolution(  # noqa: N802 - named by the contract
        self, request: ProposeResolutionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ProposeResolutionResponse:
        """Propose how an exception is resolved."""
        after = await propose_resolution(
            self._parts,
            request.exception_id,
            request.action,
            request.reason,
            request.version,
            current(),
        )
        return ProposeResolutionResponse(exception=exception_to_proto(after))

    async def DecideResolution(  # noqa: N802 - named by the contract
        self, request: DecideResolutionRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> DecideResolutionResponse:
        """Approve or reject a proposal."""
        after = await decide_resolution(
            self._parts,
            request.exception_id,
            request.reason,
            request.version,
            current(),
            approved=request.approved,
        )
        return DecideResolutionResponse(exception=exception_to_proto(after))

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._reading, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._reading, self._tokens, request)

    async def _visible(self, payment_id: str) -> Payment:
        payment = await self._parts.store.find_payment(payment_id)
        if payment is None or not _may_see(current().principal, payment):
            raise NotFoundError(resource="payment")
        return payment


def _may_see(principal: Principal, payment: Payment) -> bool:
    owner = payment.owner
    if (principal.tenant_id, str(principal.mode)) != (owner.tenant_id, owner.mode):
        return principal.actor_type is ActorType.SERVICE
    return principal.merchant_id in ("", owner.merchant_id)
