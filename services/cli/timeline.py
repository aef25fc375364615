"""One time line out of what each service tells of a story; pure, so that its order is provable."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from paymesh.type.v1 import StoryItem

from common.story import order_in_instant

# Who calls whom: where one instant holds items of several services, the caller's come first.
_SERVICES: Final = (
    "edge",
    "trade",
    "payment",
    "risk",
    "routing",
    "channel",
    "account",
    "settlement",
    "notify",
    "member",
)
_ID: Final = re.compile(r"\b(?:evt|req)_[0-9a-z]{26}\b")
# What requests are about; a user's or merchant's id would draw in the requests of other stories.
_NOUNS: Final = frozenset({"order", "payment", "refund", "delivery"})


def in_order(items: Iterable[StoryItem]) -> list[StoryItem]:
    """Return items by time, and those of one instant with each cause before its effects."""
    by_time = sorted(items, key=_instant_of)
    groups = (list(group) for _, group in itertools.groupby(by_time, key=_instant_of))
    return list(itertools.chain.from_iterable(_by_cause(group) for group in groups))


def related_ids(items: Iterable[StoryItem]) -> list[str]:
    """Return the ids that others may know something of: events, requests, nouns, callbacks."""
    found: dict[str, None] = {}
    for item in items:
        noun, _, noun_id = item.subject.partition(" ")
        if noun in _NOUNS:
            found[noun_id] = None
        for text in (item.subject, *item.details.values()):
            found.update(dict.fromkeys(_ID.findall(text)))
        if "body_sha256" in item.details:
            found[item.details["body_sha256"]] = None
    return list(found)


def name_events(items: Sequence[StoryItem]) -> None:
    """Let those who heard of an event say of what type it was, which only its teller knows."""
    types = {
        item.details["event_id"]: item.details["type"]
        for item in items
        if "event_id" in item.details and "type" in item.details
    }
    for item in items:
        if "event_id" not in item.details or "type" in item.details:
            continue
        event_id = item.details["event_id"]
        if event_id in types:
            item.details["type"] = types[event_id]


def only(
    items: Iterable[StoryItem], services: Collection[str], kinds: Collection[str]
) -> list[StoryItem]:
    """Return the items of some services and kinds; none named means all of them."""
    return [
        item
        for item in items
        if (not services or item.service in services) and (not kinds or item.kind in kinds)
    ]


def begun_by(items: Sequence[StoryItem]) -> str:
    """Return the merchant that a story belongs to; empty when no item names one."""
    return next(
        (item.details["merchant_id"] for item in items if "merchant_id" in item.details), ""
    )


def _instant_of(item: StoryItem) -> tuple[int, int]:
    # To the microsecond: rows know no more.
    return item.occurred_at.seconds, item.occurred_at.nanos // 1000


def _by_cause(group: list[StoryItem]) -> list[StoryItem]:
    if len(group) == 1:
        return group
    made_by: dict[str, StoryItem] = {}
    for item in group:
        for name in _names_of(item):
            made_by.setdefault(name, item)

    def depth(item: StoryItem) -> int:
        steps, seen = 0, [item]
        while (cause := made_by.get(seen[-1].details.get("cause", ""))) is not None:
            # Not its own cause, and no ring: rows are written by many.
            if any(cause is one for one in seen):
                break
            seen.append(cause)
            steps += 1
        return steps

    def key(item: StoryItem) -> tuple[int, int, int, int, str, str]:
        place = _SERVICES.index(item.service) if item.service in _SERVICES else len(_SERVICES)
        rank, version = order_in_instant(item)
        return depth(item), rank, version, place, item.subject, item.summary

    return sorted(group, key=key)


def _names_of(item: StoryItem) -> Iterator[str]:
    yield item.subject.rpartition(" ")[2]
    if "event_id" in item.details:
        yield item.details["event_id"]
