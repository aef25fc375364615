"""What a product says: which fields it needs, and which steps take the money.

The engine runs the same pipeline for every product (validate → route ∥ assess → record intent →
take the money → record the outcome → publish); the plan fills in what differs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from services.payment.domain.payments import PaymentForm


class Collection(enum.Enum):
    """How the money is taken."""

    LEDGER = "LEDGER"
    """From the user's own account, in the ledger."""
    CHANNEL = "CHANNEL"
    """By the channel that routing chose."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a product plans from."""

    order_type: str
    user_id: str
    card_id: str
    bank_code: str
    return_url: str


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one payment, as far as products differ in them."""

    form: PaymentForm
    collection: Collection
    missing_fields: tuple[str, ...] = ()
    """Fields of the request that the product needs and that are empty."""


@dataclass(frozen=True, slots=True)
class Product:
    """A way to pay."""

    code: str
    order_types: frozenset[str]
    """Trade types whose orders it can pay."""
    plan: Callable[[PlanRequest], Plan]
    """Pure: a request in, steps out."""


def missing(request: PlanRequest, *fields: str) -> tuple[str, ...]:
    """Return those of `fields` that the request leaves empty."""
    return tuple(name for name in fields if not getattr(request, name))
