"""The rows and statements of `trade` (`services/trade/queries.sql`)."""

from __future__ import annotations

from typing import Final

from tests.model_stores.statements import StatementBook
from tests.model_stores.tables import TableSpec

TABLES: Final[tuple[TableSpec, ...]] = ()
BOOKS: Final[tuple[StatementBook, ...]] = ()
