"""Trade's tables (`services/trade/migrations`), and the rows that statements answer."""

from __future__ import annotations

from typing import Final

from common.money import AMOUNT_MINOR_MAX
from tests.model_stores.rows import Shape, Values
from tests.model_stores.statements import StatementBook
from tests.model_stores.tables import TableSpec, Unique, spec

BOOK: Final = StatementBook("services.trade")

ORDER: Final = Shape(
    "id tenant_id mode merchant_id actor request_id merchant_order_no type state version"
    " currency_code amount_minor fee_minor fee_rate_ppm fee_returned_on_refund user_id subject"
    " payment_id refunded_minor refunding_minor biz_trace_id metadata expires_in_seconds"
    " business_date expires_at created_at updated_at"
)
REFUND: Final = Shape(
    "id order_id payment_id tenant_id mode merchant_id actor request_id merchant_refund_no state"
    " version currency_code amount_minor fee_returned_minor reason failure_reason biz_trace_id"
    " created_at updated_at"
)

_ORDER_STATES: Final = ("CREATED", "PAID", "COMPLETED", "CLOSING", "CLOSED")
_REFUND_STATES: Final = ("PROCESSING", "COMPLETED", "FAILED", "WAITING_FUNDS")
_PARTY: Final = ("tenant_id", "mode", "merchant_id")


def _is_refunded_within(row: Values) -> bool:
    return bool(row["refunded_minor"] + row["refunding_minor"] <= row["amount_minor"])


def _has_its_payment(row: Values) -> bool:
    is_paid = row["state"] == "PAID" or (row["state"] == "COMPLETED" and row["amount_minor"] > 0)
    return bool((row["payment_id"] != "") == is_paid)


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "orders",
        " ".join(ORDER.columns),
        "id",
        unique=(Unique((*_PARTY, "merchant_order_no")), Unique((*_PARTY, "request_id"))),
        defaults={
            "payment_id": "",
            "refunded_minor": 0,
            "refunding_minor": 0,
            "business_date": "",
        },
        checks={
            "orders_state_check": lambda row: row["state"] in _ORDER_STATES,
            "orders_version_check": lambda row: row["version"] > 0,
            "orders_amount_minor_check": lambda row: 0 <= row["amount_minor"] <= AMOUNT_MINOR_MAX,
            "orders_check": lambda row: 0 <= row["fee_minor"] <= row["amount_minor"],
            "orders_refunded_minor_check": lambda row: row["refunded_minor"] >= 0,
            "orders_refunding_minor_check": lambda row: row["refunding_minor"] >= 0,
            "refunds_never_exceed_the_order": _is_refunded_within,
            "paid_orders_have_their_payment": _has_its_payment,
        },
    ),
    spec("open_orders", "order_id due_at attempts", "order_id", defaults={"attempts": 0}),
    spec(
        "refunds",
        " ".join(REFUND.columns),
        "id",
        unique=(Unique((*_PARTY, "merchant_refund_no")), Unique((*_PARTY, "request_id"))),
        defaults={"fee_returned_minor": 0, "failure_reason": ""},
        checks={
            "refunds_state_check": lambda row: row["state"] in _REFUND_STATES,
            "refunds_version_check": lambda row: row["version"] > 0,
            "refunds_amount_minor_check": lambda row: 0 < row["amount_minor"] <= AMOUNT_MINOR_MAX,
            "refunds_check": lambda row: 0 <= row["fee_returned_minor"] <= row["amount_minor"],
        },
    ),
    spec("open_refunds", "refund_id due_at attempts", "refund_id", defaults={"attempts": 0}),
    spec("business_dates", "tenant_id mode business_date updated_at", "tenant_id mode"),
)
