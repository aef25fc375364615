"""What an entry must satisfy before it is written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.settlement.domain import ClearingEntry, ClearingKind, FeePlan, entry_id, why_off

PAYMENT = f"pay_{'0' * 26}"
ENTRY = ClearingEntry(
    id=entry_id(ClearingKind.PAYMENT, PAYMENT),
    kind=ClearingKind.PAYMENT,
    subject_id=PAYMENT,
    payment_id=PAYMENT,
    order_id="",
    tenant_id="default",
    mode="TEST",
    merchant_id="mer_1",
    currency_code="USD",
    gross_minor=1250,
    fee_minor=8,
    net_minor=1242,
    business_date=date(1997, 1, 2),
    biz_trace_id="",
    created_at=datetime(1997, 1, 2, tzinfo=UTC),
)


@given(gross=st.integers(1, 10**15), fee=st.integers(0, 10**15), off=st.integers(-5, 5))
def test_only_entries_that_add_up_pass(gross: int, fee: int, off: int) -> None:
    for sign, kind in ((1, ClearingKind.PAYMENT), (-1, ClearingKind.REFUND)):
        entry = replace(
            ENTRY,
            kind=kind,
            gross_minor=gross * sign,
            fee_minor=fee * sign,
            net_minor=(gross - fee) * sign + off,
        )
        assert (why_off(entry) == "") == (off == 0 and fee <= gross)
        turned = replace(entry, gross_minor=-entry.gross_minor, net_minor=-entry.net_minor)
        assert why_off(turned) != "" or fee == 0 == gross


def test_ids_of_entries_are_derived_from_what_they_are_for() -> None:
    assert entry_id(ClearingKind.PAYMENT, PAYMENT) == ENTRY.id
    assert entry_id(ClearingKind.REFUND, PAYMENT) != ENTRY.id


@pytest.mark.parametrize("rate", [-1, 1_000_001])
def test_a_rate_beyond_all_is_refused(rate: int) -> None:
    with pytest.raises(ValueError):
        FeePlan(rate, returned_on_refund=True)
