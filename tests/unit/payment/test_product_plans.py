"""Products plan: which orders they pay, what they need, where the money comes from."""

from __future__ import annotations

import dataclasses

import pytest

from services.payment.domain.payments import PaymentForm
from services.payment.domain.plans import Collection, PlanRequest, Product
from services.payment.products import PRODUCTS

EMPTY = PlanRequest(order_type="purchase", user_id="", card_id="", bank_code="", return_url="")
FULL = PlanRequest("purchase", "usr_1", "crd_1", "ICBC", "https://shop.example/back")


def _product(name: str) -> Product:
    PRODUCTS.load()
    found = PRODUCTS.find(name)
    assert found is not None
    return found


def _names() -> list[str]:
    PRODUCTS.load()
    return list(PRODUCTS)


@pytest.mark.parametrize("name", _names())
def test_products_are_named_by_their_file_and_pay_something(name: str) -> None:
    product = _product(name)
    assert product.code == name
    assert product.order_types


@pytest.mark.parametrize("name", _names())
def test_planning_is_pure_and_misses_nothing_of_a_full_request(name: str) -> None:
    product = _product(name)
    for order_type in product.order_types:
        request = dataclasses.replace(FULL, order_type=order_type)
        assert product.plan(request) == product.plan(request)
        assert product.plan(request).missing_fields == ()


def test_balance_takes_from_the_ledger_and_needs_its_user() -> None:
    plan = _product("balance").plan(EMPTY)
    assert (plan.form, plan.collection) == (PaymentForm.TRANSFER, Collection.LEDGER)
    assert plan.missing_fields == ("user_id",)
    assert "recharge" not in _product("balance").order_types


def test_quick_pay_needs_user_and_card() -> None:
    plan = _product("quick_pay").plan(EMPTY)
    assert plan.collection is Collection.CHANNEL
    assert plan.missing_fields == ("user_id", "card_id")


def test_qr_pay_needs_a_user_only_to_recharge() -> None:
    product = _product("qr_pay")
    assert product.plan(EMPTY).missing_fields == ()
    recharge = dataclasses.replace(EMPTY, order_type="recharge")
    assert product.plan(recharge).missing_fields == ("user_id",)
