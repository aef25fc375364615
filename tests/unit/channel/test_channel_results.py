"""The closed list: outcomes, masks, the table of refusals."""

from __future__ import annotations

import pytest

from common.errors import Outcome
from common.reasons import CODES
from services.channel import results
from services.channel.adapters import load_adapters
from services.channel.declines import DECLINES, decline_of
from services.channel.results import ChannelError, DeclinedError, mask


def _subclasses(kind: type[ChannelError]) -> set[type[ChannelError]]:
    found = set(kind.__subclasses__())
    return found | {deeper for one in found for deeper in _subclasses(one)}


def test_every_failure_has_a_reason_of_the_contract() -> None:
    failures = _subclasses(ChannelError)
    assert len(failures) == 7
    for failure in failures:
        assert failure.reason in CODES
        words = failure.__name__.removesuffix("Error")
        assert "".join(part.title() for part in failure.reason.split("_")) == words


def test_only_the_unknown_outcome_is_unknown() -> None:
    unknown = {one for one in _subclasses(ChannelError) if one.outcome is not Outcome.NOT_EXECUTED}
    assert unknown == {results.ChannelOutcomeUnknownError}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("card 6228480012345678 refused", "card 622848****5678 refused"),
        ("6216261000000000018", "621626****0018"),
        ("order 12345678901", "order 12345678901"),
        ("trade 2026030122001000000000000001", "trade 2026030122001000000000000001"),
        ("x" * 500, "x" * 200),
    ],
)
def test_masking_hides_card_numbers(text: str, expected: str) -> None:
    assert mask(text) == expected


def test_declines_are_of_known_adapters() -> None:
    assert {adapter for adapter, _ in DECLINES} == set(load_adapters())
    assert decline_of("unionpay", "00") is None
    assert decline_of("unionpay", "05") is None
    assert decline_of("alipay", "ACQ.SYSTEM_ERROR") is None


def test_declined_carries_unified_and_raw_code() -> None:
    decline = decline_of("unionpay", "64")
    assert decline is not None
    error = DeclinedError(
        decline, channel="unionpay_a", raw_code="64", raw_message="6228480012345678"
    )
    assert error.metadata == {
        "channel": "unionpay_a",
        "code": "INSUFFICIENT_FUNDS",
        "raw_code": "64",
        "advice": "OTHER_METHOD",
        "blame": "PAYER",
    }
    assert error.raw_message == "622848****5678"
    assert str(error) == "The other side refused the payment: INSUFFICIENT_FUNDS."
