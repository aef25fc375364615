"""The pure parts of the adapters: what is signed, how answers are read."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.money import Money
from services.channel.adapters import alipay, unionpay
from services.channel.results import RefundRequest, State

AT = datetime(2026, 3, 1, 17, 30, 5, tzinfo=UTC)


def test_alipay_signs_sorted_pairs_without_empty_ones() -> None:
    text = alipay.signing_text(
        {"b": "2", "a": "1&x=y", "empty": "", "sign": "s", "sign_type": "RSA2"},
        without=frozenset({"sign"}),
    )
    assert text == b"a=1&x=y&b=2&sign_type=RSA2"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"x_response":{"a":"1"},"sign":"s"}', '{"a":"1"}'),
        ('{"sign":"s","x_response" : {"a": "}", "b": {"c": 1}} }', '{"a": "}", "b": {"c": 1}}'),
        ('{"x_response":{"url":"https:\\/\\/q"},"sign":"s"}', '{"url":"https:\\/\\/q"}'),
        ('{"x_response":{"a":', None),
        ('{"error_response":{}}', None),
        ("", None),
    ],
)
def test_alipay_response_text_is_exact(body: str, expected: str | None) -> None:
    assert alipay.response_text(body, "x_response") == expected


def test_alipay_times_are_shanghai() -> None:
    assert alipay.local_time(AT) == "2026-03-02 01:30:05"
    assert alipay.instant("2026-03-02 01:30:05") == AT
    assert alipay.instant("") is None


def test_alipay_trade_that_was_refunded_whole_still_counts_as_paid() -> None:
    """Alipay says TRADE_CLOSED for both; taking the second for unpaid would lose the money."""
    fields = {
        "trade_status": "TRADE_CLOSED",
        "out_trade_no": "r",
        "total_amount": "1.00",
        "trans_currency": "USD",
    }
    assert alipay.trade_result(fields).state is State.CLOSED
    paid = {**fields, "send_pay_date": "2026-03-02 01:30:05"}
    assert alipay.trade_result(paid).state is State.SUCCEEDED


def test_alipay_unknown_status_is_no_result() -> None:
    with pytest.raises(ValueError, match="unknown trade status"):
        alipay.trade_result({"trade_status": "TRADE_MAYBE"})


def test_alipay_amount_without_currency_is_yuan() -> None:
    assert alipay.money_of({"total_amount": "8.8"}, "total_amount", "c") == Money("CNY", 880)


def test_alipay_refund_that_is_still_running_is_not_done() -> None:
    request = RefundRequest(
        reference="rfd1",
        requested_at=AT,
        money=Money("USD", 1),
        payment_reference="pay1",
        payment_requested_at=AT,
        payment_money=Money("USD", 2),
    )
    running = {"out_request_no": "rfd1", "refund_status": "REFUND_PROCESSING"}
    assert alipay.refund_result(running, request).state is State.NOT_FOUND
    assert alipay.refund_result({}, request).state is State.NOT_FOUND


def test_unionpay_signs_the_hex_digest_of_sorted_pairs() -> None:
    # printf 'a=1&b=2' | sha256sum
    expected = b"8e85be58c1c372ac29fe7bfa80d8ddcbd04a4032c7b51c1c026d67c55b1ab23f"
    fields = {"b": "2", "a": "1", "signature": "x", "e": ""}
    assert unionpay.signing_text(fields) == expected


def test_unionpay_answers_are_read_without_escapes() -> None:
    text = "a=1==&signature=AA+/=&tokenPayData={token=1&trId=2}&last=-----BEGIN\nx=\n"
    assert unionpay.parse_answer(text) == {
        "a": "1==",
        "signature": "AA+/=",
        "tokenPayData": "{token=1&trId=2}",
        "last": "-----BEGIN\nx=\n",
    }
    with pytest.raises(ValueError, match="no key"):
        unionpay.parse_answer("nothing")


@given(st.dictionaries(st.text("abcXYZ", min_size=1), st.text("abc+/= -", max_size=20), max_size=5))
def test_unionpay_reads_what_was_joined(fields: dict[str, str]) -> None:
    text = "&".join(f"{key}={value}" for key, value in fields.items())
    assert unionpay.parse_answer(text) == fields


def test_unionpay_time_across_new_year() -> None:
    fields = {"txnTime": "20251231235959", "traceTime": "0101000001"}
    assert unionpay.traced_at(fields) == datetime(2025, 12, 31, 16, 0, 1, tzinfo=UTC)
    assert unionpay.traced_at({"txnTime": "20260101000000"}) is None


def test_unionpay_names_currencies_by_number() -> None:
    assert unionpay.currency_number("USD") == "840"
    assert unionpay.currency_number("ALL") == "008"
    assert unionpay.currency_code("156") == "CNY"
    amount = {"txnAmt": "150", "currencyCode": "840"}
    assert unionpay.money_of(amount, "txnAmt", "currencyCode") == Money("USD", 150)
    with pytest.raises(ValueError, match="not an amount"):
        unionpay.money_of({"txnAmt": "-1", "currencyCode": "840"}, "txnAmt", "currencyCode")
