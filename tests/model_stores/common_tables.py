"""What every schema has: history and audit, outbox and inbox, jobs."""

from __future__ import annotations

from typing import Final

from tests.model_stores import common_events, common_history, common_jobs
from tests.model_stores.statements import StatementBook
from tests.model_stores.tables import TableSpec

TABLES: Final[tuple[TableSpec, ...]] = (
    *common_history.TABLES,
    *common_events.TABLES,
    *common_jobs.TABLES,
)
BOOKS: Final[tuple[StatementBook, ...]] = (
    common_history.BOOK,
    common_events.BOOK,
    common_jobs.BOOK,
)
