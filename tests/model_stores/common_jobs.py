"""The delayed-job table of a schema (`common/jobs/queries.sql`)."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final

from tests.model_stores.rows import Row, Shape, Values
from tests.model_stores.statements import Rows, StatementBook
from tests.model_stores.tables import TableSpec, Unique, by_row, spec

BOOK: Final = StatementBook("common.jobs")

_NEW: Final = (
    "job_id kind key run_at payload tenant_id mode merchant_id actor on_behalf_of biz_trace_id"
    " causation_id traceparent"
)
_STATES: Final = ("OPEN", "DONE", "PARKED", "CANCELLED")


def _is_open(row: Values) -> bool:
    return bool(row["state"] == "OPEN")


TABLES: Final[tuple[TableSpec, ...]] = (
    spec(
        "jobs",
        f"{_NEW} state attempts is_running lease last_error created_at ended_at is_hastened",
        "job_id",
        nullable="ended_at",
        unique=(Unique(("kind", "key"), when=_is_open),),
        defaults={
            "state": "OPEN",
            "attempts": 0,
            "is_running": False,
            "lease": 0,
            "last_error": "",
            "is_hastened": False,
        },
        checks={"jobs_state_check": lambda row: row["state"] in _STATES},
    ),
)

_ID: Final = Shape("job_id")
_KEY: Final = Shape("key")
_FINISHED: Final = Shape("job_id is_hastened")
_CLAIMED: Final = Shape(
    "job_id kind key run_at attempts lease payload tenant_id mode merchant_id actor on_behalf_of"
    " biz_trace_id causation_id traceparent last_error created_at"
)
_PARKED: Final = Shape(
    "job_id kind key attempts payload merchant_id biz_trace_id last_error created_at ended_at"
)
_COUNT: Final = Shape("kind state count")
_SECONDS: Final = Shape("seconds")


def _open_of(rows: Rows, kind: str, keys: list[str]) -> list[Values]:
    wanted = frozenset(keys)
    return [row for row in rows["jobs"].find(kind=kind, state="OPEN") if row["key"] in wanted]


@BOOK.model
def add_jobs(rows: Rows, *columns: Any) -> list[Row]:
    *given, now = columns
    added = rows["jobs"].insert_new_columns(_NEW, given, created_at=now or rows.now())
    return _ID.rows(added)


@BOOK.model
def cancel_jobs(rows: Rows, kind: str, keys: list[str]) -> list[Row]:
    ended = [
        rows["jobs"].update(row, state="CANCELLED", lease=row["lease"] + 1, ended_at=rows.now())
        for row in _open_of(rows, kind, keys)
        if not row["is_running"] and not row["is_hastened"]
    ]
    return _KEY.rows(ended)


@BOOK.model
def hasten_jobs(rows: Rows, kind: str, keys: list[str], now: datetime | None) -> list[Row]:
    at = now or rows.now()
    hastened = [
        rows["jobs"].update(
            row,
            is_hastened=True,
            run_at=row["run_at"] if row["is_running"] else min(row["run_at"], at),
        )
        for row in _open_of(rows, kind, keys)
        if not row["is_hastened"]
    ]
    return _KEY.rows(hastened)


@BOOK.model
def claim_jobs(
    rows: Rows, now: datetime | None, kinds: list[str], leases: list[float], limit: int
) -> list[Row]:
    at = now or rows.now()
    seconds = dict(zip(kinds, leases, strict=True))
    due = [
        row
        for row in rows["jobs"].find(state="OPEN")
        if row["kind"] in seconds and row["run_at"] <= at
    ]
    claimed = []
    for row in sorted(due, key=lambda row: row["run_at"])[:limit]:
        after = rows["jobs"].update(
            row,
            attempts=row["attempts"] + 1,
            lease=row["lease"] + 1,
            is_running=True,
            is_hastened=False,
            run_at=at + timedelta(seconds=seconds[row["kind"]]),
        )
        claimed.append(_CLAIMED.row(after, run_at=row["run_at"]))
    return claimed


@BOOK.model
def finish_jobs(rows: Rows, now: datetime | None, *columns: list[Any]) -> list[Row]:
    at = now or rows.now()
    finished = []
    for end in by_row("job_id lease state is_fresh after_seconds last_error", columns):
        row = rows["jobs"].get(end["job_id"])
        if row is None or row["lease"] != end["lease"] or not _is_open(row):
            continue
        is_hastened = row["is_hastened"]
        run_at = row["run_at"]
        if is_hastened:
            run_at = at
        elif end["state"] == "OPEN":
            run_at = at + timedelta(seconds=end["after_seconds"])
        after = rows["jobs"].update(
            row,
            state="OPEN" if is_hastened else end["state"],
            attempts=0 if end["is_fresh"] or is_hastened else row["attempts"],
            is_running=False,
            run_at=run_at,
            last_error=end["last_error"],
            ended_at=None if end["state"] == "OPEN" or is_hastened else at,
        )
        finished.append(_FINISHED.row(after))
    return finished


@BOOK.model
def renew_jobs(rows: Rows, *columns: list[Any]) -> list[Row]:
    renewed = []
    for mine in by_row("job_id lease seconds", columns):
        row = rows["jobs"].get(mine["job_id"])
        if (
            row is not None
            and row["lease"] == mine["lease"]
            and _is_open(row)
            and row["is_running"]
        ):
            run_at = rows.now() + timedelta(seconds=mine["seconds"])
            renewed.append(_ID.row(rows["jobs"].update(row, run_at=run_at)))
    return renewed


@BOOK.model
def find_next_run(rows: Rows, kinds: list[str]) -> list[Row]:
    due = [row["run_at"] for row in rows["jobs"].find(state="OPEN") if row["kind"] in kinds]
    seconds = (min(due) - rows.now()).total_seconds() if due else None
    return [_SECONDS.row({"seconds": seconds})]


@BOOK.model
def list_parked(rows: Rows, limit: int) -> list[Row]:
    found = rows["jobs"].find(state="PARKED")
    return _PARKED.rows(sorted(found, key=lambda row: row["created_at"])[:limit])


@BOOK.model
def resume_jobs(rows: Rows, job_ids: list[str], run_at: datetime | None) -> list[Row]:
    # As one statement sees it: which others are open is known before any is resumed.
    wanted = [
        row
        for row in rows["jobs"].find_keys(job_ids)
        if row["state"] == "PARKED"
        and not rows["jobs"].find(kind=row["kind"], key=row["key"], state="OPEN")
    ]
    resumed = [
        rows["jobs"].update(
            row,
            state="OPEN",
            attempts=0,
            lease=row["lease"] + 1,
            is_running=False,
            run_at=run_at or rows.now(),
            ended_at=None,
        )
        for row in wanted
    ]
    return _ID.rows(resumed)


@BOOK.model
def count_jobs(rows: Rows) -> list[Row]:
    counts = Counter(
        (row["kind"], row["state"]) for row in rows["jobs"].rows() if row["state"] != "DONE"
    )
    return [
        _COUNT.row({"kind": kind, "state": state, "count": count})
        for (kind, state), count in sorted(counts.items())
    ]


@BOOK.model
def prune_jobs(rows: Rows, now: datetime | None, keep_days: int, limit: int) -> list[Row]:
    before = (now or rows.now()) - timedelta(days=keep_days)
    old = [
        row
        for row in rows["jobs"].rows()
        if row["state"] in ("DONE", "CANCELLED")
        and row["ended_at"] is not None
        and row["ended_at"] < before
    ]
    pruned = sorted(old, key=lambda row: row["ended_at"])[:limit]
    for row in pruned:
        rows["jobs"].delete(row)
    return _ID.rows(pruned)
