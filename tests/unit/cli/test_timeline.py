"""The order of a time line: time first, then causes before their effects, whoever tells of them."""

from __future__ import annotations

import io
import itertools
import random
from datetime import UTC, datetime

import pytest
from paymesh.type.v1 import StoryItem
from rich.console import Console

from common.story import StoryTeller
from services.cli.timeline import begun_by, in_order, name_events, only, related_ids
from services.cli.trace import print_story

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVENT = "evt_01m80yftne006xrcdbh3x93ezf"
REQUEST = "req_01m80yfvd900brga234wjdfmt5"


def item(
    service: str,
    kind: str,
    summary: str = "",
    *,
    micros: int = 0,
    subject: str = "",
    **details: str,
) -> StoryItem:
    one = StoryItem(
        service=service, kind=kind, subject=subject or "noun 1", summary=summary, details=details
    )
    one.occurred_at.FromDatetime(NOON)
    one.occurred_at.nanos += micros * 1000
    return one


@pytest.mark.parametrize("seed", range(20))
def test_items_of_one_instant_stand_in_the_order_of_their_kinds(seed: int) -> None:
    wanted = [
        item("edge", "request"),
        item("trade", "call"),
        item("trade", "decision"),
        item("trade", "state", version="1"),
        item("trade", "state", version="2"),
        item("trade", "state", version="10"),
        item("trade", "event"),
        item("trade", "job"),
        item("account", "posting", micros=1),
        item("trade", "call", micros=2),
    ]
    mixed = list(wanted)
    random.Random(seed).shuffle(mixed)  # noqa: S311 - nothing is kept secret by it
    assert in_order(mixed) == wanted


def test_callers_come_before_those_they_call() -> None:
    services = ["edge", "trade", "payment", "risk", "channel", "account", "settlement", "unknown"]
    wanted = [item(service, "call") for service in services]
    assert in_order(reversed(wanted)) == wanted


def test_an_effect_follows_its_cause_within_an_instant() -> None:
    """By its kind alone the state would come before the event that made it."""
    heard = item("trade", "state", "PAID", cause=EVENT)
    told = item("payment", "event", subject=f"event {EVENT}", event_id=EVENT)
    made = item("payment", "state", "SUCCEEDED", cause=REQUEST)
    asked = item("edge", "request", subject=f"request {REQUEST}")
    wanted = [asked, told, made, heard]
    for mixed in itertools.permutations(wanted):
        found = in_order(mixed)
        assert found.index(asked) < found.index(made)
        assert found.index(told) < found.index(heard)


def test_a_ring_of_causes_ends() -> None:
    ring = [
        item("a", "state", subject="x 1", cause="2"),
        item("a", "state", subject="x 2", cause="1"),
        item("a", "state", subject="x 3", cause="3"),
    ]
    assert len(in_order(ring)) == 3


def test_related_ids_are_those_of_events_requests_and_nouns() -> None:
    items = [
        item("trade", "state", subject="order trd_1", cause=REQUEST, user_id="usr_1"),
        item("trade", "event", subject=f"event {EVENT}", event_id=EVENT),
        item("member", "state", subject="user usr_2"),
        item("account", "posting", subject="transfer tfr_1", reference="pay_1"),
        item("channel", "callback", subject="payment att1", body_sha256="ab" * 32),
    ]
    assert related_ids(items) == ["trd_1", REQUEST, EVENT, "att1", "ab" * 32]


def test_who_heard_an_event_learns_its_type_from_who_told_it() -> None:
    items = [
        item("notify", "event", event_id=EVENT, consumer="notify.webhooks"),
        item("trade", "event", event_id=EVENT, type="trade.order.completed.v1"),
        item("notify", "event", event_id="evt_other", consumer="notify.webhooks"),
        item("trade", "state"),
        item("trade", "call", type="purchase"),
    ]
    name_events(items)
    assert items[0].details["type"] == "trade.order.completed.v1"
    assert "type" not in items[2].details
    assert dict(items[3].details) == {}


def test_filters_leave_out_and_the_merchant_is_named() -> None:
    items = [item("edge", "request", merchant_id="mer_1"), item("trade", "state")]
    assert only(items, [], []) == items
    assert only(items, ["trade"], []) == items[1:]
    assert only(items, [], ["request"]) == items[:1]
    assert only(items, ["trade"], ["request"]) == []
    assert begun_by(items) == "mer_1"
    assert begun_by(items[1:]) == ""


def test_printing_gives_one_line_per_item_under_its_day() -> None:
    console = Console(file=io.StringIO(), width=40)
    tomorrow = item("trade", "state", "CLOSED", subject="order trd_1", reason="[late]")
    tomorrow.occurred_at.seconds += 86_400
    print_story("biz_1", [item("edge", "request", "POST → 200"), tomorrow], console)
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "story biz_1",
        "  2026-03-01",
        "  12:00:00.000 edge       request      noun 1: POST → 200  ",
        "  2026-03-02",
        "  12:00:00.000 trade      state        order trd_1: CLOSED  reason=[late]",
    ]


def test_card_numbers_and_secrets_are_masked_wherever_they_stand() -> None:
    row = {
        "at": NOON,
        "kind": "job",
        "subject": "job 1",
        "summary": "card 4111 1111 1111 1111 refused",
        "details": {
            "last_answer": "Bearer abcdefghijkl of amqp://user:pass@mq",
            "channel_transaction_no": "2026030122001400001",
            "empty": "",
            "absent": None,
        },
    }
    told = StoryTeller("shop").item(row)  # type: ignore[arg-type]
    assert told.summary == "card ****1111 refused"
    assert dict(told.details) == {
        "last_answer": "Bearer [redacted] of amqp://user:[redacted]@mq",
        "channel_transaction_no": "2026030122001400001",
    }
