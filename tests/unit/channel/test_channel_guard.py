"""The guard against adapters that are wrong: nothing strange leaves it, and nothing untrue."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from common.clock import SystemClock
from common.money import Money
from services.channel.adapters import Adapter, AdapterRegistryError, build_adapter, load_adapters
from services.channel.guard import Guard, compare
from services.channel.results import (
    Callback,
    ChannelInvalidError,
    ChannelOutcomeUnknownError,
    ChannelResult,
    ChannelUnavailableError,
    ChannelVerbUnsupportedError,
    PayRequest,
    QueryRequest,
    RawCallback,
    State,
    Verb,
)
from services.channel.transport import Transport, mark_written, open_session

AT = datetime(2026, 3, 1, tzinfo=UTC)
MONEY = Money("USD", 100)
REQUEST = PayRequest(reference="pay1", requested_at=AT, money=MONEY, subject="CD")
QUESTION = QueryRequest(reference="pay1", requested_at=AT, money=MONEY)
RESULT = ChannelResult(state=State.SUCCEEDED, reference="pay1", money=MONEY)


class _Strange(Adapter):
    """An adapter whose `pay` sends or not, then fails as told."""

    code = "strange"

    def __init__(self, error: BaseException | None, *, sends: bool) -> None:
        self.channel = "strange_a"
        self._error = error
        self._sends = sends

    async def pay(self, request: PayRequest) -> ChannelResult:
        if self._sends:
            mark_written()
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
        return RESULT

    async def parse_callback(self, raw: RawCallback) -> Callback:
        raise KeyError(raw.body)


def _guard(error: BaseException | None, *, sends: bool) -> Guard:
    return Guard(_Strange(error, sends=sends), clock=SystemClock(), timeout_seconds=0.05)


@pytest.mark.parametrize("error", [KeyError("x"), ValueError("x"), OSError("x"), None])
async def test_stray_error_after_sending_is_an_unknown_outcome(error: Exception | None) -> None:
    with pytest.raises(ChannelOutcomeUnknownError):
        await _guard(error, sends=True).pay(REQUEST)


@pytest.mark.parametrize("error", [ConnectionError("x"), TimeoutError("x"), None])
async def test_stray_failure_of_the_line_before_sending_is_unavailable(
    error: Exception | None,
) -> None:
    with pytest.raises(ChannelUnavailableError):
        await _guard(error, sends=False).pay(REQUEST)


async def test_bug_before_sending_is_invalid() -> None:
    with pytest.raises(ChannelInvalidError):
        await _guard(KeyError("x"), sends=False).pay(REQUEST)


async def test_caller_that_gives_up_is_not_translated() -> None:
    with pytest.raises(asyncio.CancelledError):
        await _guard(asyncio.CancelledError(), sends=True).pay(REQUEST)


async def test_signed_callback_of_unknown_form_is_unknown() -> None:
    with pytest.raises(ChannelOutcomeUnknownError):
        await _guard(None, sends=False).parse_callback(RawCallback(body=b"x"))


async def test_verbs_that_are_not_overridden_are_unsupported() -> None:
    guard = _guard(None, sends=False)
    assert guard.capabilities == {Verb.PAY, Verb.PARSE_CALLBACK}
    for verb in (guard.query, guard.close):
        with pytest.raises(ChannelVerbUnsupportedError) as refused:
            await verb(QUESTION)
        assert refused.value.metadata["channel"] == "strange_a"


@pytest.mark.parametrize(
    ("changes", "conflict"),
    [
        ({}, ""),
        ({"money": None}, ""),
        ({"money": Money("USD", 99)}, "money"),
        ({"money": Money("EUR", 100)}, "currency_code"),
        ({"reference": "pay2"}, "reference"),
        ({"state": State.PENDING, "money": Money("USD", 1)}, "money"),
        ({"state": State.NOT_FOUND, "reference": "pay2"}, ""),
    ],
)
def test_comparing_finds_what_differs(changes: dict[str, object], conflict: str) -> None:
    result = compare(replace(RESULT, **changes), "pay1", MONEY)  # type: ignore[arg-type]
    assert result.conflict == conflict
    assert (result.state is State.CONFLICT) == bool(conflict)


def test_adapters_are_found_by_their_files() -> None:
    assert sorted(load_adapters()) == ["alipay", "unionpay"]


async def test_wrong_settings_are_named_without_their_values() -> None:
    async with open_session() as session:
        transport = Transport(session, "alipay_a")
        clock = SystemClock()
        with pytest.raises(AdapterRegistryError, match="no adapter has the code 'nothing'"):
            build_adapter("nothing", "nothing_a", {}, transport, clock)
        config = {"app_id": "1", "private_key": "hush", "gateway_url": "u", "extra": "hush"}
        with pytest.raises(AdapterRegistryError, match="alipay_public_key, extra") as refused:
            build_adapter("alipay", "alipay_a", config, transport, clock)
        assert "hush" not in str(refused.value)
        config = {
            "app_id": "1",
            "private_key": "hush",
            "gateway_url": "u",
            "alipay_public_key": "hush",
        }
        with pytest.raises(AdapterRegistryError, match="a key is unreadable") as refused:
            build_adapter("alipay", "alipay_a", config, transport, clock)
        assert "hush" not in str(refused.value)
