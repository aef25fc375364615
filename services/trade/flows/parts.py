"""What the flows are given: stores, lanes, peers, clock and ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from common.backoff import Backoff
from common.clock import Clock
from common.coalescer import Coalescer, CoalescerLimits
from common.context import ActorType, CallContext, Mode, Principal, current
from common.db.failures import classify
from common.errors import NotFoundError
from common.ids import IdFactory
from services.trade.config import TradeSettings
from services.trade.domain import Claim, Order, Refund
from services.trade.fee_plans import FeePlans
from services.trade.peers import Peers
from services.trade.store.orders import Made, OrderStore
from services.trade.store.refunds import RefundStore
from services.trade.wallets import Wallets

# As many batches may wait as answer within a second or two.
_QUEUE_FACTOR = 32


class OrderLanes:
    """Where single calls meet: making, claiming and reading orders.

    A flush whose answer was lost is simply done again: each of them finds by the rows what an
    earlier try has done.
    """

    def __init__(self, store: OrderStore, items_max: int) -> None:
        limits = CoalescerLimits(
            batch_weight_max=items_max, queue_weight_max=items_max * _QUEUE_FACTOR
        )
        self._new: Coalescer[Order, Made] = Coalescer(
            store.insert_orders,
            classify=classify,
            read_back=_nothing_known,
            limits=limits,
            name="new orders",
        )
        self._claims: Coalescer[Claim, Order | None] = Coalescer(
            store.claim_orders,
            classify=classify,
            read_back=_nothing_known,
            limits=limits,
            name="claims of orders",
        )
        self._reads: Coalescer[str, Order | None] = Coalescer(
            store.find_orders,
            classify=classify,
            read_back=_nothing_known,
            limits=limits,
            name="reads of orders",
        )

    async def insert(self, order: Order) -> Made:
        """Write an order, unless its request or number exists."""
        return await self._new.submit(order)

    async def claim(self, claim: Claim) -> Order | None:
        """Let a payment win an order; return the order after it."""
        return await self._claims.submit(claim)

    async def find(self, order_id: str) -> Order | None:
        """Read an order."""
        return await self._reads.submit(order_id)

    async def drain(self) -> None:
        """Wait for everything handed in."""
        for lane in (self._new, self._claims, self._reads):
            await lane.drain()


async def _nothing_known(items: Sequence[object]) -> Sequence[None]:
    return [None] * len(items)


@dataclass(frozen=True)
class Parts:
    """The parts of the service that flows use."""

    orders: OrderStore
    refunds: RefundStore
    lanes: OrderLanes
    peers: Peers
    fee_plans: FeePlans
    wallets: Wallets
    clock: Clock
    ids: IdFactory
    settings: TradeSettings

    def pause(self, attempts: int) -> timedelta:
        """Return how long to wait before the next question, after so many."""
        backoff = Backoff(
            first_seconds=self.settings.again_first_seconds,
            longest_seconds=self.settings.again_longest_seconds,
        )
        return timedelta(seconds=backoff.pause(attempts))


def may_see(principal: Principal, row: Order | Refund) -> bool:
    """Say whether a row is the principal's: its world, and for outsiders its merchant."""
    if (principal.tenant_id, str(principal.mode)) != (row.tenant_id, row.mode):
        return False
    if principal.actor_type in (ActorType.SERVICE, ActorType.OPERATOR):
        return True
    return principal.merchant_id == row.merchant_id


async def visible_order(parts: Parts, order_id: str, principal: Principal) -> Order:
    """Return an order; raises NotFoundError when there is none, or it is another's."""
    order = await parts.lanes.find(order_id)
    if order is None or not may_see(principal, order):
        raise NotFoundError(resource="order", id=order_id)
    return order


def own_call(row: Order | Refund, cause: str) -> CallContext:
    """Return the circumstances in which the service goes on with a row in its own name.

    Within a call its deadline stays.
    """
    return replace(
        current(),
        principal=Principal(
            tenant_id=row.tenant_id,
            mode=Mode(row.mode),
            merchant_id=row.merchant_id,
            actor_type=ActorType.SERVICE,
            actor_id="trade",
        ),
        biz_trace_id=row.biz_trace_id,
        causation_id=cause,
    )
