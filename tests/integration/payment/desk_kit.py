"""The exception desk, as people call it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flow_cases import (
    AMOUNT,
    Case,
    return_is_refused,
)
from hosted_services import operator_call
from payment_kit import PaymentKit
from paymesh.payment.v1 import (
    DecideResolutionRequest,
    GetExceptionRequest,
    ListExceptionsRequest,
    PaymentException,
    PaymentServiceStub,
    ProposeResolutionRequest,
)

from common.context import CallContext, bound


async def new_case(payment: PaymentKit, product: str = "qr_pay") -> Case:
    """Return a new order, about to be paid; the bank behaves."""
    payment.bank.behave()
    return Case(payment, (await payment.new_order(AMOUNT)).id, product)


def call_of_person(name: str, *roles: str) -> CallContext:
    """Return the circumstances of a person's call."""
    call = operator_call(*roles)
    return replace(call, principal=replace(call.principal, actor_id=name))


class Desk:
    """The desk's RPCs, as somebody of some name and roles calls them."""

    def __init__(self, payment: PaymentKit) -> None:
        self._stub = PaymentServiceStub(payment.kit.channel("operator", "payment"))

    async def get(self, exception_id: str) -> PaymentException:
        """Read an exception."""
        with bound(call_of_person("ada", "operator")):
            request = GetExceptionRequest(exception_id=exception_id)
            return (await self._stub.GetException(request)).exception

    async def propose(
        self, one: PaymentException, action: str, name: str = "ada", role: str = "desk_maker"
    ) -> PaymentException:
        """Propose an action."""
        with bound(call_of_person(name, "operator", role)):
            request = ProposeResolutionRequest(
                exception_id=one.id, action=action, reason="because", version=one.version
            )
            return (await self._stub.ProposeResolution(request)).exception

    async def decide(
        self,
        one: PaymentException,
        name: str = "grace",
        role: str = "desk_checker",
        *,
        approved: bool = True,
    ) -> PaymentException:
        """Approve or reject."""
        with bound(call_of_person(name, "operator", role)):
            request = DecideResolutionRequest(
                exception_id=one.id, approved=approved, reason="so be it", version=one.version
            )
            return (await self._stub.DecideResolution(request)).exception

    async def list(self, **asked: Any) -> Any:
        """List exceptions."""
        with bound(call_of_person("ada", "operator")):
            return await self._stub.ListExceptions(ListExceptionsRequest(**asked))


async def refused_return(payment: PaymentKit, desk: Desk) -> tuple[Case, PaymentException]:
    """A return that the channel refuses."""
    case = await new_case(payment)
    await return_is_refused(case)
    return case, await desk.get((await case.exception())["id"])
