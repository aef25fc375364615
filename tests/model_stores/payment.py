"""The rows and statements of `payment` (`services/payment/queries.sql`)."""

from __future__ import annotations

from typing import Final

from tests.model_stores import payment_exceptions, payment_facts, payment_movements
from tests.model_stores.payment_tables import BOOK, TABLES
from tests.model_stores.statements import StatementBook

BOOKS: Final[tuple[StatementBook, ...]] = (BOOK,)
MODULES: Final = (payment_exceptions, payment_facts, payment_movements)
"""What models the statements: imported, so that they are known."""

__all__ = ["BOOKS", "MODULES", "TABLES"]
