"""Read vouchers and the register; nobody sees another world's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

from common.errors import NotFoundError, PageTokenInvalidError
from common.ids import book_of
from common.paging import Scalar
from services.account.domain.vouchers import Voucher
from services.account.flows.book_voucher import VoucherParts
from services.account.store.register import RegisterQuery


async def find_voucher(parts: VoucherParts, voucher_id: str, tenant_id: str, mode: str) -> Voucher:
    """Read one voucher of a world; raises NotFoundError."""
    async with parts.pool.acquire() as connection:
        found = await parts.register.find(connection, book_of(voucher_id), [voucher_id])
    voucher = found.get(voucher_id)
    if voucher is None or (voucher.tenant_id, voucher.mode) != (tenant_id, mode):
        raise NotFoundError(resource="voucher")
    return voucher


async def list_register(
    parts: VoucherParts, query: RegisterQuery, position: Sequence[Scalar] | None
) -> tuple[list[Voucher], list[Scalar]]:
    """Read a page of the register of all books, one book after the other.

    `position` is where the page before ended. Returns also where this one does; empty at the end.

    Raises:
        PageTokenInvalidError: the position is none of this list.
    """
    book, first_on, number = _place_of(position, query)
    books = [one for one in await parts.vouchers.list_books() if one >= book]
    vouchers: list[Voucher] = []
    for one in books:
        is_begun = one == book
        vouchers += await parts.register.list_page(
            replace(
                query,
                book=one,
                from_on=first_on if is_begun else query.from_on,
                after_number=number if is_begun else 0,
                limit=query.limit + 1 - len(vouchers),
            )
        )
        if len(vouchers) > query.limit:
            last = vouchers[query.limit - 1]
            return vouchers[:-1], [last.book, last.business_date.isoformat(), last.number]
    return vouchers, []


def _place_of(position: Sequence[Scalar] | None, query: RegisterQuery) -> tuple[int, date, int]:
    if position is None:
        return 0, query.from_on, 0
    match position:
        case [int(book), str(day), int(number)]:
            return book, date.fromisoformat(day), number
    raise PageTokenInvalidError
