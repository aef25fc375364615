"""Payment's tables (`services/payment/migrations`), and the rows that statements answer."""

from __future__ import annotations

from typing import Final

from tests.model_stores.rows import Shape, Values
from tests.model_stores.statements import StatementBook
from tests.model_stores.tables import TableSpec, Unique, spec

BOOK: Final = StatementBook("services.payment")

NEW_PAYMENT: Final = (
    "id order_id tenant_id mode merchant_id actor request_id product form state version"
    " currency_code amount_minor user_id card_id bank_code subject order_type channel"
    " channel_reason attempt risk_verdict risk_rules action_kind action_content failure_reason"
    " decline_code raw_code advice fee_minor fee_returned_on_refund business_date biz_trace_id"
    " client_ip device_id expires_at created_at"
)
PAYMENT: Final = Shape(
    "id order_id tenant_id mode merchant_id actor request_id product form state version"
    " currency_code amount_minor user_id card_id bank_code subject order_type channel"
    " channel_reason attempt risk_verdict risk_rules action_kind action_content failure_reason"
    " decline_code raw_code advice fee_minor fee_returned_on_refund refunded_minor refunding_minor"
    " fee_given_back_minor business_date biz_trace_id client_ip device_id expires_at created_at"
    " updated_at received_currency_code received_minor return_attempt retried_steps way_out"
    " late_returns"
)
REFUND: Final = Shape(
    "id payment_id order_id tenant_id mode merchant_id actor state version currency_code"
    " amount_minor fee_returned_minor reason attempt source_kind failure_reason raw_code"
    " business_date biz_trace_id created_at updated_at retried_steps"
)
EXCEPTION: Final = Shape(
    "id kind state version tenant_id mode merchant_id subject_id payment_id channel currency_code"
    " amount_minor detail occasion default_action due_at repeats action maker maker_reason checker"
    " checker_reason resolution biz_trace_id created_at updated_at"
)

_DESK_STATES: Final = ("OPEN", "PROPOSED", "APPROVED", "RESOLVED")


def _is_refunded_within(row: Values) -> bool:
    return bool(row["refunded_minor"] + row["refunding_minor"] <= row["amount_minor"])


def _is_checked_by_another(row: Values) -> bool:
    return bool(row["checker"] == "" or row["checker"] != row["maker"])


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "payments",
        " ".join(PAYMENT.columns),
        "id",
        defaults={
            "refunded_minor": 0,
            "refunding_minor": 0,
            "fee_given_back_minor": 0,
            "received_currency_code": "",
            "received_minor": 0,
            "return_attempt": 1,
            "retried_steps": "",
            "way_out": "",
            "late_returns": 0,
        },
        checks={
            "payments_version_check": lambda row: row["version"] > 0,
            "payments_amount_minor_check": lambda row: row["amount_minor"] > 0,
            "payments_fee_minor_check": lambda row: row["fee_minor"] >= 0,
            "payments_refunded_minor_check": lambda row: row["refunded_minor"] >= 0,
            "payments_refunding_minor_check": lambda row: row["refunding_minor"] >= 0,
            "payments_fee_given_back_minor_check": lambda row: row["fee_given_back_minor"] >= 0,
            "payments_way_out_check": lambda row: row["way_out"] in ("", "RETURN", "UNCLAIM"),
            "payments_late_returns_check": lambda row: row["late_returns"] >= 0,
            "refunds_never_exceed_the_payment": _is_refunded_within,
            "fees_given_back_never_exceed_the_fee": lambda row: (
                row["fee_given_back_minor"] <= row["fee_minor"]
            ),
        },
    ),
    spec(
        "attempts",
        "payment_id attempt reference channel created_at",
        "payment_id attempt",
        unique=(Unique(("reference",)),),
    ),
    spec(
        "refunds",
        " ".join(REFUND.columns),
        "id",
        defaults={"retried_steps": ""},
        checks={
            "refunds_version_check": lambda row: row["version"] > 0,
            "refunds_amount_minor_check": lambda row: row["amount_minor"] > 0,
            "refunds_fee_returned_minor_check": lambda row: row["fee_returned_minor"] >= 0,
        },
    ),
    spec(
        "exceptions",
        " ".join(EXCEPTION.columns),
        "id",
        checks={
            "exceptions_state_check": lambda row: row["state"] in _DESK_STATES,
            "exceptions_version_check": lambda row: row["version"] > 0,
            "exceptions_repeats_check": lambda row: row["repeats"] >= 0,
            "maker_is_never_the_checker": _is_checked_by_another,
        },
    ),
)
