"""`paymesh trace ID`: the whole story of a business order on one time line, from rows."""

from __future__ import annotations

from datetime import UTC

import orjson
from google.protobuf.json_format import MessageToDict
from paymesh.type.v1 import StoryItem
from rich.console import Console
from rich.table import Table

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
        console.print(time_line(biz_trace_id or subject, items))
    return 0


def time_line(biz_trace_id: str, items: list[StoryItem]) -> Table:
    """Return a story as a table, oldest first."""
    table = Table(title=f"story {biz_trace_id}", title_justify="left", box=None)
    for column in ("time (UTC)", "service", "kind", "what", ""):
        table.add_column(column, no_wrap=column == "time (UTC)", overflow="fold")
    for item in items:
        at = item.occurred_at.ToDatetime(UTC).strftime("%H:%M:%S.%f")[:-3]
        details = ", ".join(
            f"{key} {value}" for key, value in sorted(item.details.items()) if value
        )
        table.add_row(at, item.service, item.kind, f"{item.subject}: {item.summary}", details)
    return table
