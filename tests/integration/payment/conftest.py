"""Fixtures of the payment service's tests."""

import pytest
from desk_kit import Desk
from payment_kit import PaymentKit, payment

__all__ = ["payment"]


@pytest.fixture
async def desk(payment: PaymentKit) -> Desk:
    """The exception desk of the module's payment service."""
    return Desk(payment)
