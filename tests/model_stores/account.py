"""The ledger's rows and statements (`services/account/queries.sql`)."""

from __future__ import annotations

from typing import Final

from tests.model_stores import account_keeping, account_posting, account_reading
from tests.model_stores.account_reading import STATEMENTS
from tests.model_stores.account_tables import BOOK, DAYS, TABLES
from tests.model_stores.statements import StatementBook

BOOKS: Final[tuple[StatementBook, ...]] = (BOOK, DAYS, STATEMENTS)
MODULES: Final = (account_keeping, account_posting, account_reading)
"""What models the statements: imported, so that they are known."""

__all__ = ["BOOKS", "MODULES", "TABLES"]
