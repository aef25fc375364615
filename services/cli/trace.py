"""`paymesh trace ID`: the whole story of a business order on one time line, from rows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

import orjson
from google.protobuf.json_format import MessageToDict
from paymesh.type.v1 import StoryItem
from rich.console import Console

from services.cli.facts import find_stories, tell_story
from services.cli.operator import Operator, operate
from services.cli.timeline import begun_by, only


@dataclass(frozen=True)
class Wanted:
    """Which items are shown; none named means all."""

    services: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()


async def run_trace(
    subject: str, as_json: bool, console: Console, wanted: Wanted | None = None
) -> int:
    """Print a story as `trace` does, as an operator of the installation that is configured."""
    async with operate() as operator:
        return await trace(operator, subject, as_json, console, wanted or Wanted())


async def trace(
    operator: Operator, subject: str, as_json: bool, console: Console, wanted: Wanted
) -> int:
    """Print the story found by any id that belongs to it; 1 when nobody knows it.

    A number that belongs to several stories (merchants number their orders as they like) is
    answered with the list of them, so that the caller can choose.
    """
    found = await find_stories(operator, subject)
    if len(found.stories) > 1:
        return await _list_stories(operator, subject, found.stories, as_json, console)
    story = found.stories[0] if found.stories else ""
    items = await tell_story(operator, story) if story else found.alone
    if not items:
        console.print(f"nobody knows {subject}", highlight=False, markup=False)
        return 1
    items = only(items, wanted.services, wanted.kinds)
    if as_json:
        _print_json({"biz_trace_id": story, "items": [_as_dict(item) for item in items]}, console)
    else:
        print_story(story or f"none: {subject} belongs to no order", items, console)
    return 0


async def _list_stories(
    operator: Operator, subject: str, stories: Sequence[str], as_json: bool, console: Console
) -> int:
    told = await asyncio.gather(*(tell_story(operator, story) for story in stories))
    rows = [
        {
            "biz_trace_id": story,
            "merchant_id": begun_by(items),
            "began_at": f"{items[0].occurred_at.ToDatetime(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "began_with": f"{items[0].subject}: {items[0].summary}",
        }
        for story, items in zip(stories, told, strict=True)
        if items
    ]
    if as_json:
        _print_json({"subject": subject, "stories": rows}, console)
        return 0
    console.print(
        f"{subject} belongs to {len(rows)} stories; trace one of them:",
        highlight=False,
        markup=False,
    )
    for row in rows:
        console.print(
            f"  {row['biz_trace_id']} {row['began_at']} {row['merchant_id']} {row['began_with']}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    return 0


def print_story(biz_trace_id: str, items: Sequence[StoryItem], console: Console) -> None:
    """Print a story, one line for each thing that happened, oldest first; times are UTC."""
    console.print(f"story {biz_trace_id}", highlight=False, markup=False)
    day = ""
    for item in items:
        at = item.occurred_at.ToDatetime(UTC)
        if f"{at:%Y-%m-%d}" != day:
            day = f"{at:%Y-%m-%d}"
            console.print(f"  {day}", highlight=False)
        details = " ".join(f"{key}={value}" for key, value in sorted(item.details.items()) if value)
        console.print(
            f"  {at:%H:%M:%S}.{at.microsecond // 1000:03d} {item.service:<10} {item.kind:<12} "
            f"{item.subject}: {item.summary}  {details}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _as_dict(item: StoryItem) -> dict[str, Any]:
    return MessageToDict(item, preserving_proto_field_name=True)


def _print_json(story: dict[str, Any], console: Console) -> None:
    console.out(orjson.dumps(story, option=orjson.OPT_INDENT_2).decode(), highlight=False)
