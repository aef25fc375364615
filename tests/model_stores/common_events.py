"""Outbox and inbox of a schema (`common/events/queries.sql`)."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows, StatementBook
from tests.model_stores.tables import TableSpec, by_row, spec

BOOK: Final = StatementBook(
    "common.events",
    not_modelled={
        "make_partitions": "the model has no partitions",
        "drop_partitions": "the model has no partitions",
    },
)

_NEW: Final = (
    "event_id type aggregate_id aggregate_version tenant_id mode merchant_id biz_trace_id body"
)
_DEAD: Final = (
    "consumer event_id type aggregate_id aggregate_version biz_trace_id attempts last_error event"
)


def _has_version(row: Values) -> bool:
    return bool(row["aggregate_version"] > 0)


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "outbox",
        f"recorded_at position {_NEW} published_at",
        "recorded_at position",
        nullable="published_at",
        checks={"outbox_aggregate_version_check": _has_version},
    ),
    spec("inbox", "consumer event_id received_at", "consumer event_id"),
    spec("inbox_versions", "consumer aggregate_id version", "consumer aggregate_id"),
    spec(
        "inbox_parked",
        "consumer event_id aggregate_id aggregate_version attempts due_at last_error event"
        " parked_at",
        "consumer event_id",
    ),
    spec("inbox_dead", f"{_DEAD} died_at", "consumer event_id"),
)

_WAITING: Final = Shape("recorded_at position type aggregate_id body")
_WAITING_COUNT: Final = Shape("waiting oldest_seconds")
_ID: Final = Shape("event_id")
_VERSION: Final = Shape("aggregate_id version")
_ATTEMPTS: Final = Shape("event_id attempts")
_DUE: Final = Shape("event_id attempts event is_overdue")
_DEAD_ROW: Final = Shape(
    "consumer event_id type aggregate_id aggregate_version biz_trace_id attempts last_error died_at"
)
_EXHUMED: Final = Shape("event_id aggregate_id aggregate_version event")
_PARKED_COUNT: Final = Shape("parked dead")


def _waiting(rows: Rows) -> list[Values]:
    found = rows["outbox"].find(published_at=None)
    return sorted(found, key=lambda row: row["position"])


@BOOK.model
def add_events(rows: Rows, *columns: list[Any]) -> None:
    for event in by_row(_NEW, columns):
        position = rows.next_number("outbox_position")
        rows["outbox"].insert({**event, "recorded_at": rows.now(), "position": position})


@BOOK.model
def find_waiting_events(rows: Rows, limit: int) -> list[Row]:
    return _WAITING.rows(_waiting(rows)[:limit])


@BOOK.model
def mark_published(rows: Rows, recorded: list[datetime], positions: list[int]) -> None:
    for recorded_at, position in zip(recorded, positions, strict=True):
        row = rows["outbox"].get(recorded_at, position)
        if row is not None:
            rows["outbox"].update(row, published_at=rows.now())


@BOOK.model
def count_waiting_events(rows: Rows) -> list[Row]:
    waiting = _waiting(rows)
    oldest = min((row["recorded_at"] for row in waiting), default=rows.now())
    seconds = (rows.now() - oldest).total_seconds()
    return [_WAITING_COUNT.row({"waiting": len(waiting), "oldest_seconds": seconds})]


@BOOK.model
def take_events(rows: Rows, consumer: str, event_ids: list[str]) -> list[Row]:
    taken = rows["inbox"].insert_new_columns(
        "event_id", [event_ids], consumer=consumer, received_at=rows.now()
    )
    return _ID.rows(taken)


@BOOK.model
def begin_versions(rows: Rows, consumer: str, aggregate_ids: list[str]) -> None:
    rows["inbox_versions"].insert_new_columns(
        "aggregate_id", [aggregate_ids], consumer=consumer, version=0
    )


@BOOK.model
def lock_versions(rows: Rows, consumer: str, aggregate_ids: list[str]) -> list[Row]:
    return _VERSION.rows(rows["inbox_versions"].find_keys(aggregate_ids, consumer))


@BOOK.model
def advance_versions(
    rows: Rows, consumer: str, aggregate_ids: list[str], versions: list[int]
) -> None:
    for aggregate_id, version in zip(aggregate_ids, versions, strict=True):
        row = rows["inbox_versions"].get(consumer, aggregate_id)
        if row is not None:
            rows["inbox_versions"].update(row, version=version)


@BOOK.model
def park_events(rows: Rows, consumer: str, *columns: Any) -> list[Row]:
    *events, attempts, pause_seconds, last_error = columns
    due_at = rows.now() + timedelta(seconds=pause_seconds)
    parked = []
    for event in by_row("event_id aggregate_id aggregate_version event", events):
        row = rows["inbox_parked"].get(consumer, event["event_id"])
        if row is None:
            after = rows["inbox_parked"].insert(
                {
                    **event,
                    "consumer": consumer,
                    "attempts": attempts,
                    "due_at": due_at,
                    "last_error": last_error,
                    "parked_at": rows.now(),
                }
            )
        else:
            after = rows["inbox_parked"].update(
                row,
                attempts=row["attempts"] + attempts,
                due_at=due_at,
                last_error=last_error or row["last_error"],
            )
        parked.append(_ATTEMPTS.row(after))
    return parked


@BOOK.model
def wake_parked(rows: Rows, consumer: str, aggregate_ids: list[str]) -> list[Row]:
    woken = [
        rows["inbox_parked"].update(row, due_at=rows.now())
        for row in rows["inbox_parked"].find(consumer=consumer)
        if row["aggregate_id"] in aggregate_ids and row["due_at"] > rows.now()
    ]
    return _ID.rows(woken)


@BOOK.model
def find_due_parked(rows: Rows, consumer: str, limit: int, gap_seconds: float) -> list[Row]:
    overdue_before = rows.now() - timedelta(seconds=gap_seconds)
    due = [
        row for row in rows["inbox_parked"].find(consumer=consumer) if row["due_at"] <= rows.now()
    ]
    due.sort(key=lambda row: (row["aggregate_id"], row["aggregate_version"]))
    return [_DUE.row(row, is_overdue=row["parked_at"] < overdue_before) for row in due[:limit]]


@BOOK.model
def lock_parked(rows: Rows, consumer: str, event_ids: list[str]) -> list[Row]:
    return _ID.rows(rows["inbox_parked"].find_keys(event_ids, consumer))


@BOOK.model
def unpark_events(rows: Rows, consumer: str, event_ids: list[str]) -> None:
    for row in rows["inbox_parked"].find_keys(event_ids, consumer):
        rows["inbox_parked"].delete(row)


@BOOK.model
def bury_event(rows: Rows, *values: Any) -> None:
    dead = dict(zip(_DEAD.split(), values, strict=True))
    row = rows["inbox_dead"].get(dead["consumer"], dead["event_id"])
    if row is None:
        rows["inbox_dead"].insert({**dead, "died_at": rows.now()})
    else:
        rows["inbox_dead"].update(
            row, attempts=dead["attempts"], last_error=dead["last_error"], died_at=rows.now()
        )


@BOOK.model
def list_dead(rows: Rows, limit: int) -> list[Row]:
    found = sorted(rows["inbox_dead"].rows(), key=lambda row: row["died_at"])
    return _DEAD_ROW.rows(found[:limit])


@BOOK.model
def exhume_events(rows: Rows, consumer: str, event_ids: list[str]) -> list[Row]:
    found = rows["inbox_dead"].find_keys(event_ids, consumer)
    for row in found:
        rows["inbox_dead"].delete(row)
    return _EXHUMED.rows(found)


@BOOK.model
def set_version(rows: Rows, consumer: str, aggregate_id: str, version: int) -> None:
    row = rows["inbox_versions"].get(consumer, aggregate_id)
    if row is None:
        rows["inbox_versions"].insert(
            {"consumer": consumer, "aggregate_id": aggregate_id, "version": version}
        )
    else:
        rows["inbox_versions"].update(row, version=version)


@BOOK.model
def count_parked(rows: Rows, consumer: str) -> list[Row]:
    return [
        _PARKED_COUNT.row(
            {
                "parked": len(rows["inbox_parked"].find(consumer=consumer)),
                "dead": len(rows["inbox_dead"].find(consumer=consumer)),
            }
        )
    ]


@BOOK.model
def prune_inbox(
    rows: Rows, consumer: str, before_id: str, before: datetime, limit: int
) -> list[Row]:
    old = [
        row
        for row in rows["inbox"].find(consumer=consumer)
        if row["event_id"] < before_id and row["received_at"] < before
    ]
    pruned = sorted(old, key=lambda row: row["event_id"])[:limit]
    for row in pruned:
        rows["inbox"].delete(row)
    return _ID.rows(pruned)
