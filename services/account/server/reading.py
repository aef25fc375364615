"""The servicer of the outer books, the half that only reads. Nobody sees another world's rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc.aio
from paymesh.account.v1 import (
    AccountServiceServicer,
    CheckBooksRequest,
    CheckBooksResponse,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetStatementRequest,
    GetStatementResponse,
    GetTransfersRequest,
    GetTransfersResponse,
    ListAccountKindsRequest,
    ListAccountKindsResponse,
    ListAccountsRequest,
    ListAccountsResponse,
    ListEntriesRequest,
    ListEntriesResponse,
    SumAccountsRequest,
    SumAccountsResponse,
)

from common.context import current
from common.errors import IdMalformedError
from common.ids import book_of, is_id
from common.paging import PageTokens, Scalar
from services.account.convert.accounts import (
    account_to_proto,
    account_total_to_proto,
    transfer_to_proto,
)
from services.account.convert.statements import (
    day_from_text,
    entry_to_proto,
    instant_from_proto,
    kind_to_proto,
    place_from_position,
    place_to_position,
    statement_to_proto,
)
from services.account.domain.kinds import Kinds
from services.account.flows.read_statements import (
    Drain,
    Reader,
    find_account,
    read_balance_at,
    read_statement,
)
from services.account.store.reading import ReadingStore
from services.account.store.statements import StatementStore

_PAGE_DEFAULT: Final = 100


@dataclass(frozen=True)
class ReadingParts:
    """What the reading half is made of."""

    kinds: Kinds
    reading: ReadingStore
    statements: StatementStore
    drain: Drain
    tokens: PageTokens


class ReadingServicer(AccountServiceServicer):
    """Lists, balances and statements of `paymesh.account.v1.AccountService`."""

    def __init__(self, parts: ReadingParts) -> None:
        self._reading_parts = parts

    async def ListAccounts(  # noqa: N802 - named by the contract
        self, request: ListAccountsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListAccountsResponse:
        """List the accounts of one owner."""
        parts, reader = self._reading_parts, _reader()
        filters = _filters(reader, owner_id=request.owner_id)
        position = parts.tokens.read("account.accounts", request.page_token, filters)
        limit = request.page_size or _PAGE_DEFAULT
        found = await parts.statements.list_accounts(
            request.owner_id,
            reader.tenant_id,
            reader.mode,
            after_id=str(position[0]) if position else "",
            limit=limit + 1,
        )
        token = ""
        if len(found) > limit:
            found.pop()
            token = parts.tokens.issue("account.accounts", [found[-1].id], filters)
        return ListAccountsResponse(
            accounts=[account_to_proto(account) for account in found], next_page_token=token
        )

    async def ListAccountKinds(  # noqa: N802 - named by the contract
        self, request: ListAccountKindsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListAccountKindsResponse:
        """List the registry of account kinds."""
        kinds = self._reading_parts.kinds
        return ListAccountKindsResponse(
            kinds=[kind_to_proto(kinds[code]) for code in sorted(kinds)]
        )

    async def GetTransfers(  # noqa: N802 - named by the contract
        self, request: GetTransfersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetTransfersResponse:
        """Read transfers by id."""
        reader = _reader()
        found = await read_by_book(request.ids, "tfr", self._reading_parts.reading.read_transfers)
        return GetTransfersResponse(
            transfers=[
                transfer_to_proto(stored)
                for stored in sorted(found, key=lambda stored: str(stored.transfer.id))
                if (stored.transfer.tenant_id, stored.transfer.mode)
                == (reader.tenant_id, reader.mode)
            ]
        )

    async def ListEntries(  # noqa: N802 - named by the contract
        self, request: ListEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListEntriesResponse:
        """List the entries of an account."""
        parts, reader = self._reading_parts, _reader()
        filters = _filters(reader, account_id=request.account_id)
        position = parts.tokens.read("account.entries", request.page_token, filters)
        limit = request.page_size or _PAGE_DEFAULT
        async with parts.statements.view() as view:
            account = await find_account(view, reader, request.account_id)
            lines = await view.list_entries(
                request.account_id,
                after_version=int(position[0] or 0) if position else 0,
                last_version=account.version,
                limit=limit + 1,
            )
        token = ""
        if len(lines) > limit:
            lines.pop()
            token = parts.tokens.issue("account.entries", [lines[-1].version], filters)
        return ListEntriesResponse(
            entries=[entry_to_proto(line, account.normal_side) for line in lines],
            next_page_token=token,
        )

    async def GetBalanceAt(  # noqa: N802 - named by the contract
        self, request: GetBalanceAtRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetBalanceAtResponse:
        """Read the balance that an account had at an instant."""
        parts = self._reading_parts
        at = instant_from_proto(request.at, "at")
        account, sums = await read_balance_at(
            parts.statements, parts.drain, _reader(), request.account_id, at
        )
        return GetBalanceAtResponse(
            balance_minor=sums.balance_minor(account.normal_side),
            debits_minor=sums.debits_minor,
            credits_minor=sums.credits_minor,
            currency_code=account.currency_code,
        )

    async def GetStatement(  # noqa: N802 - named by the contract
        self, request: GetStatementRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetStatementResponse:
        """Read an account's statement over business days."""
        parts, reader = self._reading_parts, _reader()
        days = day_from_text(request.from_on, "from_on"), day_from_text(request.to_on, "to_on")
        filters = _filters(
            reader, account_id=request.account_id, from_on=request.from_on, to_on=request.to_on
        )
        position = parts.tokens.read("account.statement", request.page_token, filters)
        page = await read_statement(
            parts.statements,
            parts.drain,
            reader,
            request.account_id,
            days,
            place=place_from_position(position),
            limit=request.page_size or _PAGE_DEFAULT,
        )
        answer = statement_to_proto(page)
        if page.next_place is not None:
            answer.next_page_token = parts.tokens.issue(
                "account.statement", place_to_position(page.next_place), filters
            )
        return answer

    async def SumAccounts(  # noqa: N802 - named by the contract
        self, request: SumAccountsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SumAccountsResponse:
        """Sum all accounts by kind and currency."""
        reader = _reader()
        totals = await self._reading_parts.reading.sum_accounts(reader.tenant_id, reader.mode)
        difference: dict[str, int] = {}
        for total in totals:
            off = total.debits_posted_minor - total.credits_posted_minor
            off -= total.credits_buffered_minor
            difference[total.currency_code] = difference.get(total.currency_code, 0) + off
        return SumAccountsResponse(
            totals=[account_total_to_proto(total) for total in totals],
            difference_minor=difference,
        )

    async def CheckBooks(  # noqa: N802 - named by the contract
        self, request: CheckBooksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CheckBooksResponse:
        """Compare every account with the sum of its entries."""
        report = await self._reading_parts.reading.check()
        return CheckBooksResponse(
            accounts=report.accounts, entries=report.entries, findings=report.findings
        )


async def read_by_book(ids: Sequence[str], prefix: str, read: Callable[..., Any]) -> list[Any]:
    """Read things by id, each in its book; raises IdMalformedError."""
    books: dict[int, list[str]] = {}
    for place, one in enumerate(ids):
        if not is_id(one, prefix):
            raise IdMalformedError(field=f"ids[{place}]")
        books.setdefault(book_of(one), []).append(one)
    answers = await asyncio.gather(*(read(book, wanted) for book, wanted in books.items()))
    return [found for answer in answers for found in answer.values()]


def _reader() -> Reader:
    principal = current().principal
    return Reader(principal.tenant_id, str(principal.mode))


def _filters(reader: Reader, **filters: str) -> dict[str, Scalar]:
    """What a page token is bound to: the caller's world and what was asked for."""
    return {"tenant_id": reader.tenant_id, "mode": reader.mode, **filters}
