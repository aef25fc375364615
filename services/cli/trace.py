"""`paymesh trace ID`: the whole story of a business order on one time line, from rows."""

from __future__ import annotations

from datetime import UTC

import orjson
from google.protobuf.json_format import MessageToDict
from paymesh.type.v1 import StoryItem
from rich.console import Console

from services.cli.facts import find_story, tell_story
from services.cli.operator import operate


async def run_trace(subject: str, as_json: bool, console: Console) -> int:
    """Print a story found by any id that belongs to it; 1 when nobody knows it."""
    async with operate() as operator:
        biz_trace_id = await find_story(operator, subject)
        # The subject may be the story's own id.
        items = await tell_story(operator, biz_trace_id or subject)
    if not items:
        console.print(f"nobody knows {subject}")
        return 1
    if as_json:
        rows = [MessageToDict(item, preserving_proto_field_name=True) for item in items]
        story = {"biz_trace_id": biz_trace_id or subject, "items": rows}
        console.out(orjson.dumps(story, option=orjson.OPT_INDENT_2).decode(), highlight=False)
    else:
        print_story(biz_trace_id or subject, items, console)
    return 0


def print_story(biz_trace_id: str, items: list[StoryItem], console: Console) -> None:
    """Print a story, one line for each thing that happened, oldest first; times are UTC."""
    console.print(f"story {biz_trace_id}", highlight=False)
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
