"""The numbers of the journal's rows: ids of their transactions, shifted where they began anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from common.db.types import Connection
from services.account.store.vouchers import VOUCHER_QUERIES

# Postings and cuts queue up behind, so this one gives up where it would have to wait long.
_ALONE: Final = (
    "SET LOCAL lock_timeout = '500ms';"
    " LOCK TABLE business_dates IN EXCLUSIVE MODE;"
    " LOCK TABLE transfers IN ACCESS EXCLUSIVE MODE"
)


@dataclass(frozen=True, slots=True)
class Numbering:
    """Where the journal's numbers stand."""

    next_id: int
    """No transaction that ends from now on has a smaller id in this cluster."""
    greatest: int
    """Greatest number that rows, cursors and days hold."""
    shift: int
    """What numbers are above the cluster's ids."""
    shift_of_rows: int
    """The same as new rows get it: something else where only the schema or the data was copied."""

    @property
    def next(self) -> int:
        """The smallest number of new rows."""
        return self.next_id + self.shift_of_rows

    @property
    def is_behind(self) -> bool:
        """Whether new rows get numbers that were given before: in another cluster alone."""
        return self.greatest >= self.next or self.shift != self.shift_of_rows


async def read_numbering(connection: Connection) -> Numbering:
    """Read where numbers stand."""
    row = await connection.fetchrow(VOUCHER_QUERIES["read_numbering"])
    if row is None:
        raise RuntimeError("the journal has no numbering")
    return Numbering(*row)


async def lock_numbering(connection: Connection) -> None:
    """Let nothing be booked, cut or vouchered until the transaction ends.

    Raises:
        asyncpg.LockNotAvailableError: others took too long.
    """
    await connection.execute(_ALONE)


async def shift_numbering(connection: Connection, numbering: Numbering) -> int:
    """Let numbers go on behind the greatest; the journal is locked.

    What was booked here before with smaller numbers, and has no voucher yet, is put behind too.
    Returns how many transfers that were.
    """
    number = numbering.greatest + 1
    shift = max(number - numbering.next_id, numbering.shift)
    moved: int = await connection.fetchval(
        VOUCHER_QUERIES["renumber_without_vouchers"],
        numbering.next,
        number,
        numbering.shift_of_rows,
    )
    # After that: when the row was written tells since when the journal is here.
    await connection.execute(VOUCHER_QUERIES["update_numbering"], shift)
    # No parameters in a definition; it is a number of ours.
    await connection.execute(
        "ALTER TABLE transfers ALTER COLUMN written_in"
        f" SET DEFAULT ((pg_current_xact_id()::text::bigint + {shift:d})::text::xid8)"
    )
    await connection.execute(VOUCHER_QUERIES["move_watermarks"], number)
    return moved
