"""JSON ↔ messages: what is written is read again as the same, and nothing else is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st
from paymesh.edge.v1 import ListStoryRequest
from paymesh.member.v1 import MerchantKey
from paymesh.trade.v1 import CreateOrderRequest, ListOrdersResponse, Order, OrderState
from paymesh.type.v1 import StoryItem

from services.edge.errors import JsonFieldUnknownError, JsonInvalidError
from services.edge.rest.json_codec import (
    JsonCodec,
    UnsupportedFieldError,
    format_timestamp,
    parse_json,
)

CODEC = JsonCodec()

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
int64 = st.integers(-(2**63), 2**63 - 1)
timestamps = st.builds(
    Timestamp,
    seconds=st.integers(-62_135_596_800, 253_402_300_799),
    nanos=st.integers(0, 10**9 - 1),
)


@st.composite
def orders(draw: st.DrawFn) -> Order:
    order = Order(
        id=draw(texts),
        state=draw(st.sampled_from([v for v in OrderState.values() if v])),
        metadata=draw(st.dictionaries(texts, texts, max_size=3)),
        refunded_minor=draw(int64),
        version=draw(int64),
    )
    if draw(st.booleans()):
        order.amount.currency_code = draw(texts)
        order.amount.amount_minor = draw(int64)
    if draw(st.booleans()):
        order.fee.rate_ppm = draw(st.integers(-(2**31), 2**31 - 1))
    if draw(st.booleans()):
        order.created_at.CopyFrom(draw(timestamps))
    return order


@given(st.lists(orders(), max_size=3), texts)
def test_a_message_written_and_read_is_the_same(content: list[Order], token: str) -> None:
    message = ListOrdersResponse(orders=content, next_page_token=token)

    text = orjson.dumps(CODEC.writer(message.DESCRIPTOR)(message))
    again = CODEC.reader(message.DESCRIPTOR).read(parse_json(text))

    assert again == message
    for one, back in zip(message.orders, again.orders, strict=True):  # type: ignore[attr-defined]
        assert one.HasField("amount") == back.HasField("amount")
        assert one.HasField("fee") == back.HasField("fee")


@given(timestamps)
def test_a_time_is_written_by_rfc_3339(at: Timestamp) -> None:
    text = format_timestamp(at.seconds, at.nanos)

    whole = datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    assert whole - datetime(1970, 1, 1, tzinfo=UTC) == timedelta(seconds=at.seconds)
    assert text.endswith("Z")
    assert text == at.ToJsonString()


@given(st.binary(max_size=64))
def test_bytes_are_written_in_base64(content: bytes) -> None:
    key = MerchantKey(public_key=content)

    text = orjson.dumps(CODEC.writer(key.DESCRIPTOR)(key))

    assert CODEC.reader(key.DESCRIPTOR).read(parse_json(text)) == key


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([f.name for f in CreateOrderRequest.DESCRIPTOR.fields])
            | st.sampled_from(["amount_minor", "currency_code"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_read_or_refused_and_never_breaks(value: Any) -> None:
    try:
        message = CODEC.reader(CreateOrderRequest.DESCRIPTOR).read(
            parse_json(json.dumps(value).encode())
        )
    except (JsonInvalidError, JsonFieldUnknownError) as error:
        assert error.field  # noqa: PT017 - the alternative is no error at all
    else:
        assert isinstance(message, CreateOrderRequest)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_and_never_break(body: bytes) -> None:
    try:
        CODEC.reader(CreateOrderRequest.DESCRIPTOR).read(parse_json(body))
    except (JsonInvalidError, JsonFieldUnknownError) as error:
        assert error.field  # noqa: PT017 - the alternative is no error at all


@pytest.mark.parametrize(
    "text",
    [
        "2026-02-30T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01 00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567890Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00+25:00",
        "٢٠٢٦-01-01T00:00:00Z",
        "",
    ],
)
def test_a_time_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(JsonInvalidError) as refused:
        CODEC.reader(Order.DESCRIPTOR).read({"created_at": text})

    assert refused.value.metadata == {"field": "created_at", "rule": "must be a time by RFC 3339"}


def test_a_time_in_another_zone_is_the_same_instant() -> None:
    read = CODEC.reader(Order.DESCRIPTOR).read

    assert read({"created_at": "2026-01-01T08:00:00.5+08:00"}) == read(
        {"created_at": "2026-01-01T00:00:00.500Z"}
    )


@pytest.mark.parametrize(
    "state", ["ORDER_STATE_COMPLETED", "completed", "UNSPECIFIED", 3, "", None]
)
def test_a_state_is_read_by_its_short_name_alone(state: Any) -> None:
    with pytest.raises(JsonInvalidError) as refused:
        CODEC.reader(Order.DESCRIPTOR).read({"state": state})

    assert refused.value.field == "state"
    assert "COMPLETED" in refused.value.metadata["rule"]


def test_a_state_of_a_newer_service_is_written_as_such() -> None:
    order = Order(state=999)  # type: ignore[arg-type]

    assert CODEC.writer(Order.DESCRIPTOR)(order)["state"] == "UNKNOWN_999"


def test_absent_parts_are_left_out_and_empty_ones_written() -> None:
    written = CODEC.writer(Order.DESCRIPTOR)(Order())

    assert "amount" not in written
    assert "created_at" not in written
    assert "state" not in written
    assert (written["id"], written["refunded_minor"], written["metadata"]) == ("", 0, {})


def test_two_of_a_choice_are_refused() -> None:
    with pytest.raises(JsonInvalidError) as refused:
        CODEC.reader(ListStoryRequest.DESCRIPTOR).read({"biz_trace_id": "", "subject_id": "b"})

    assert refused.value.field == "subject_id"


def test_paths_name_lists_and_maps() -> None:
    read = CODEC.reader(ListOrdersResponse.DESCRIPTOR).read
    for value, path in (
        ({"orders": [{}, {"amount": {"amount_minor": "1"}}]}, "orders[1].amount.amount_minor"),
        ({"orders": [{"metadata": {"a": 1}}]}, "orders[0].metadata.a"),
        ({"orders": [7]}, "orders[0]"),
    ):
        with pytest.raises(JsonInvalidError) as refused:
            read(value)
        assert refused.value.field == path


def test_a_map_of_texts_is_written_as_an_object() -> None:
    item = StoryItem(details={"b": "2", "a": "1"})

    assert CODEC.writer(StoryItem.DESCRIPTOR)(item)["details"] == {"a": "1", "b": "2"}


def test_a_contract_with_floats_is_refused_at_the_start() -> None:
    with pytest.raises(UnsupportedFieldError):
        CODEC.reader(Value.DESCRIPTOR)
