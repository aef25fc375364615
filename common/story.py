"""What a service tells of itself: its part of a business story, and facts that audits compare.

Every schema has the same tables for what every service does (history, jobs, outbox, inbox), so
their part is told here once; a service adds statements of its own for the rest. Messages of the
services have the same fields and differ in type, so the caller hands its class in.

A story is read from rows alone, so that it is complete without any span stored.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from paymesh.type.v1 import Fact, StoryItem

from common.context import ActorType, current
from common.db.pool import Pool
from common.db.queries import load_queries
from common.db.types import Record
from common.errors import FieldInvalidError, PermissionDeniedError
from common.ids import is_id, time_of
from common.logs import redact_text
from common.paging import PageTokens

STORY_ITEMS_MAX: Final = 1000
"""Items of a story on one page."""

FACTS_MAX: Final = 5000
"""Facts on one page."""

_SQL: Final = load_queries("common", "story_queries.sql")
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_OTHERS_MAX: Final = 20
_EVENT: Final = "evt"
# Clocks of the machines that make an id and of the database differ.
_BEFORE_ID: Final = timedelta(minutes=5)
# An event's id is derived from its noun's: most happen within a day of the noun's birth.
_AFTER_ID: Final = timedelta(days=1)

# What goes before what when one instant holds both: the cause before its effect.
_RANKS: Final = {
    kind: rank
    for rank, kind in enumerate(
        (
            "request",
            "callback",
            "call",
            "decision",
            "channel_call",
            "webhook",
            "posting",
            "voucher",
            "state",
            "exception",
            "event",
            "job",
        )
    )
}

Response = TypeVar("Response")


class StoryRequest(Protocol):
    """`ListStoryRequest` of any service."""

    @property
    def biz_trace_id(self) -> str:
        """The story; empty when `subject_id` is given."""
        ...

    @property
    def subject_id(self) -> str:
        """Any number that belongs to the story."""
        ...

    @property
    def page_size(self) -> int:
        """Items per page; 0 for STORY_ITEMS_MAX."""
        ...

    @property
    def page_token(self) -> str:
        """Token of the page before; empty for the first."""
        ...

    @property
    def related_ids(self) -> Sequence[str]:
        """Ids that others told of: only what is known of these by itself is to be told."""
        ...

    @property
    def thorough(self) -> bool:
        """Whether to search where no index helps."""
        ...


class FactsRequest(Protocol):
    """`ListFactsRequest` of any service."""

    @property
    def kind(self) -> str:
        """Kind of fact."""
        ...

    @property
    def page_size(self) -> int:
        """Facts per page; 0 for FACTS_MAX."""
        ...

    @property
    def page_token(self) -> str:
        """Token of the page before; empty for the first."""
        ...


@dataclass(frozen=True)
class StoryTeller:
    """One service's part of stories.

    `statements` are those of its `story_queries.sql`, all of which may be missing: `list_story`
    (common/story_queries.sql says of what form), `find_story` (the stories that a number belongs
    to, newest first; given the number and the tenant), `find_story_thoroughly` (the same, where no
    index helps) and `list_related` (items of ids that others told of, which this service cannot
    tell by the story; given the ids).
    """

    service: str
    statements: Mapping[str, str] = field(default_factory=dict)

    async def tell(
        self,
        pool: Pool,
        tokens: PageTokens,
        request: StoryRequest,
        response: Callable[..., Response],
    ) -> Response:
        """Answer a ListStoryRequest.

        Raises:
            PermissionDeniedError: the caller is neither an operator nor a service.
            PageTokenInvalidError: the token is of another story.
        """
        check_reader("ListStory")
        if request.related_ids:
            related = await self._list_related(pool, request.related_ids)
            return response(biz_trace_id=request.biz_trace_id if related else "", items=related)
        stories = [request.biz_trace_id] if request.biz_trace_id else []
        if not stories and request.subject_id:
            stories = await self._find(pool, request.subject_id, thorough=request.thorough)
        if not stories:
            return response()
        items, token = await self._list(pool, tokens, stories[0], request)
        return response(
            biz_trace_id=stories[0] if items or request.page_token else "",
            items=items,
            next_page_token=token,
            other_biz_trace_ids=stories[1 : 1 + _OTHERS_MAX],
        )

    async def _list(
        self, pool: Pool, tokens: PageTokens, story: str, request: StoryRequest
    ) -> tuple[list[StoryItem], str]:
        """Return a page and the token of the next.

        A position is an instant and how many items of that instant were told: items come in later,
        and none goes away in the middle of reading.
        """
        filters = {"story": story}
        name = f"{self.service}.story"
        position = tokens.read(name, request.page_token, filters)
        start, skip = (_EARLIEST, 0) if position is None else _position_of(position)
        size = request.page_size or STORY_ITEMS_MAX
        rows: list[Record] = []
        async with pool.acquire() as connection:
            for statement in (_SQL["list_common_story"], self.statements.get("list_story")):
                if statement:
                    rows += await connection.fetch(statement, story, start, skip + size + 1)
        rows = sorted(rows, key=_order_of)[skip:]
        token = ""
        if len(rows) > size:
            last = rows[size - 1]["at"]
            told = sum(row["at"] == last for row in rows[:size])
            told += skip if last == start else 0
            token = tokens.issue(name, (_micros_of(last), told), filters)
        return [self.item(row) for row in rows[:size]], token

    async def _list_related(self, pool: Pool, related_ids: Sequence[str]) -> list[StoryItem]:
        rows: list[Record] = []
        async with pool.acquire() as connection:
            for statement in (_SQL["list_heard"], self.statements.get("list_related")):
                if statement:
                    rows += await connection.fetch(statement, list(related_ids))
        return [self.item(row) for row in sorted(rows, key=_order_of)]

    async def _find(self, pool: Pool, subject_id: str, *, thorough: bool) -> list[str]:
        """Return the stories that a number belongs to, newest first as far as that is known."""
        tenant_id = current().principal.tenant_id
        found: list[str] = []
        async with pool.acquire() as connection:
            if "find_story" in self.statements:
                rows = await connection.fetch(self.statements["find_story"], subject_id, tenant_id)
                found += [row["biz_trace_id"] for row in rows]
            rows = await connection.fetch(_SQL["find_common_story"], subject_id)
            found += [row["biz_trace_id"] for row in rows]
            if not found and is_id(subject_id, _EVENT):
                born = time_of(subject_id)
                until = _LATEST if thorough else born + _AFTER_ID
                rows = await connection.fetch(
                    _SQL["find_story_of_event"], subject_id, born - _BEFORE_ID, until
                )
                found += [row["biz_trace_id"] for row in rows]
            if not found and thorough and "find_story_thoroughly" in self.statements:
                rows = await connection.fetch(
                    self.statements["find_story_thoroughly"], subject_id, tenant_id
                )
                found += [row["biz_trace_id"] for row in rows]
        return [story for story in dict.fromkeys(found) if story]

    def item(self, row: Record) -> StoryItem:
        """Return a row (at, kind, subject, summary, details) as an item, without empty details.

        Texts that others wrote may hold anything, so card numbers and secrets are taken out of all.
        """
        return StoryItem(
            occurred_at=timestamp(row["at"]),
            service=self.service,
            kind=row["kind"],
            subject=row["subject"],
            summary=redact_text(row["summary"]),
            details={
                name: redact_text(value)
                for name, value in row["details"].items()
                if value is not None and value != ""
            },
        )


async def page_facts(
    service: str,
    tokens: PageTokens,
    request: FactsRequest,
    response: Callable[..., Response],
    kinds: Collection[str],
    read: Callable[[str, str, int], Awaitable[Sequence[tuple[str, Fact]]]],
) -> Response:
    """Answer a ListFactsRequest.

    `read` is given a kind, the position to go on behind (empty for the beginning) and how many to
    return at most, and answers facts in the order of their positions.

    Raises:
        PermissionDeniedError: the caller is neither an operator nor a service.
        FieldInvalidError: no such kind.
        PageTokenInvalidError: the token is of another kind.
    """
    check_reader("ListFacts")
    if request.kind not in kinds:
        raise FieldInvalidError(field="kind", rule=f"must be one of {', '.join(kinds)}")
    principal = current().principal
    filters = {"kind": request.kind, "tenant": principal.tenant_id, "mode": str(principal.mode)}
    name = f"{service}.facts"
    position = tokens.read(name, request.page_token, filters)
    size = request.page_size or FACTS_MAX
    found = await read(request.kind, "" if position is None else str(position[0]), size + 1)
    token = tokens.issue(name, [found[size - 1][0]], filters) if len(found) > size else ""
    return response(facts=[fact for _, fact in found[:size]], next_page_token=token)


def check_reader(method: str) -> None:
    """Raise PermissionDeniedError unless an operator or a service asks: stories are of all."""
    if current().principal.actor_type not in (ActorType.OPERATOR, ActorType.SERVICE):
        raise PermissionDeniedError(method=method)


def texts(values: Mapping[str, Any] | Record) -> dict[str, str]:
    """Return the columns of a row as a fact's values."""
    return {name: str(value) for name, value in values.items()}


def timestamp(at: datetime) -> Timestamp:
    """Return the message of an instant."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def order_in_instant(item: StoryItem) -> tuple[int, int]:
    """Return what items of one instant are sorted by: cause before effect, then version."""
    return _rank_of(item.kind), _version_of(item.details)


def _order_of(row: Record) -> tuple[datetime, int, int, str, str]:
    details = row["details"]
    rank, version = _rank_of(row["kind"]), _version_of(details)
    return row["at"], rank, version, row["subject"], row["summary"]


def _rank_of(kind: str) -> int:
    return _RANKS.get(kind, len(_RANKS))


def _version_of(details: Mapping[str, str]) -> int:
    version = details.get("version", "")
    return int(version) if version.isdigit() else 0


def _position_of(position: Sequence[Any]) -> tuple[datetime, int]:
    return _EARLIEST + timedelta(microseconds=int(position[0])), int(position[1])


def _micros_of(at: datetime) -> int:
    return (at - _EARLIEST) // timedelta(microseconds=1)
