"""Sends a delivery again, at once and from the beginning of the schedule."""

from __future__ import annotations

from collections.abc import Callable

from common.clock import Clock
from common.context import Principal
from common.errors import IdConflictError, NotFoundError, StateConflictError
from services.notify.domain.deliveries import Delivery, Owner
from services.notify.store.deliveries import DeliveryStore, Resend


def may_see(principal: Principal, owner: Owner) -> bool:
    """Say whether a row is the caller's: a merchant's own, or anyone's of its world."""
    if (principal.tenant_id, str(principal.mode)) != (owner.tenant_id, owner.mode):
        return False
    return principal.merchant_id in ("", owner.merchant_id)


async def resend_webhook(
    store: DeliveryStore,
    clock: Clock,
    wake: Callable[[], None],
    request_id: str,
    delivery_id: str,
    principal: Principal,
) -> Delivery:
    """Return the delivery after it; a repeat of the request changes nothing.

    Raises:
        NotFoundError: no such delivery of the caller's.
        IdConflictError: the request was made before for another delivery.
        StateConflictError: its address is switched off.
    """
    delivery = await store.find_delivery(delivery_id)
    if delivery is None or not may_see(principal, delivery.owner):
        raise NotFoundError(resource="webhook delivery")
    asked = Resend(
        delivery_id=delivery_id,
        request_id=request_id,
        owner=Owner(principal.tenant_id, str(principal.mode), principal.merchant_id),
        actor=principal.actor,
        at=clock.now(),
    )
    after = await store.resend(asked)
    if after is not None:
        wake()
        return after
    earlier = await store.find_resend(asked.owner, request_id)
    if earlier is None:
        raise StateConflictError(resource="webhook endpoint", state="DISABLED")
    if earlier != delivery_id:
        raise IdConflictError(field="delivery_id")
    return await store.find_delivery(delivery_id) or delivery
