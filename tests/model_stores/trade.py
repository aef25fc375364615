"""The rows and statements of `trade` (`services/trade/queries.sql`)."""

from __future__ import annotations

from typing import Final

from tests.model_stores import trade_facts, trade_orders, trade_refunds
from tests.model_stores.statements import StatementBook
from tests.model_stores.trade_tables import BOOK, TABLES

BOOKS: Final[tuple[StatementBook, ...]] = (BOOK,)
MODULES: Final = (trade_facts, trade_orders, trade_refunds)
"""What models the statements: imported, so that they are known."""

__all__ = ["BOOKS", "MODULES", "TABLES"]
