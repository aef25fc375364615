"""Fixtures of the payment service's tests."""

from payment_kit import payment

__all__ = ["payment"]
