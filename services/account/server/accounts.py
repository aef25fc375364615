"""The servicer of the outer books: converts, calls a flow, converts back."""

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
    CreateTransfersRequest,
    CreateTransfersResponse,
    GetAccountsRequest,
    GetAccountsResponse,
    GetBusinessDateRequest,
    GetBusinessDateResponse,
    GetOwnerBalancesRequest,
    GetOwnerBalancesResponse,
    GetTransfersRequest,
    GetTransfersResponse,
    ListEntriesRequest,
    ListEntriesResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    OpenAccountsRequest,
    OpenAccountsResponse,
    SetAccountStatusRequest,
    SetAccountStatusResponse,
    SumAccountsRequest,
    SumAccountsResponse,
)
from paymesh.account.v1 import AccountStatus as AccountStatusMessage

from common.context import ActorType, current
from common.db.pool import Pool
from common.errors import IdMalformedError, NotFoundError
from common.ids import BOOK_DEFAULT, book_of, is_id
from common.paging import PageTokens
from services.account.convert.accounts import (
    account_to_proto,
    account_total_to_proto,
    entry_to_proto,
    owner_balance_to_proto,
    result_to_proto,
    spec_from_proto,
    transfer_from_proto,
    transfer_to_proto,
)
from services.account.domain.accounts import AccountStatus
from services.account.errors import AccountNotFoundError
from services.account.flows.change_account import ChangeRequest, set_account_status
from services.account.flows.open_accounts import open_accounts
from services.account.flows.post_transfers import Ledger
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from services.account.story import list_facts, list_story

_ENTRIES_DEFAULT: Final = 100


@dataclass(frozen=True)
class Parts:
    """What the servicer is made of."""

    pool: Pool
    ledger: Ledger
    accounts: AccountStore
    days: DayStore
    reading: ReadingStore
    tokens: PageTokens


class AccountServicer(AccountServiceServicer):
    """`paymesh.account.v1.AccountService`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def OpenAccounts(  # noqa: N802 - named by the contract
        self, request: OpenAccountsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> OpenAccountsResponse:
        """Open accounts."""
        call = current()
        specs = [spec_from_proto(spec, call) for spec in request.accounts]
        opened = await open_accounts(self._parts.pool, self._parts.accounts, specs)
        return OpenAccountsResponse(accounts=[account_to_proto(account) for account in opened])

    async def GetAccounts(  # noqa: N802 - named by the contract
        self, request: GetAccountsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetAccountsResponse:
        """Read accounts by id."""
        found = await _by_book(request.ids, "acc", self._parts.accounts.read)
        principal = current().principal
        return GetAccountsResponse(
            accounts=[
                account_to_proto(account)
                for account in found
                if (account.tenant_id, account.mode) == (principal.tenant_id, principal.mode)
            ]
        )

    async def GetOwnerBalances(  # noqa: N802 - named by the contract
        self, request: GetOwnerBalancesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetOwnerBalancesResponse:
        """Read the balances of one owner."""
        principal = current().principal
        found = await self._parts.accounts.list_of_owner(
            request.owner_id, principal.tenant_id, str(principal.mode)
        )
        if principal.actor_type is ActorType.MERCHANT:
            merchants = (principal.merchant_id,)
            found = [a for a in found if a.merchant_id in merchants or a.owner_id in merchants]
        if not found:
            raise NotFoundError(resource="owner")
        return GetOwnerBalancesResponse(balances=[owner_balance_to_proto(a) for a in found])

    async def CreateTransfers(  # noqa: N802 - named by the contract
        self, request: CreateTransfersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CreateTransfersResponse:
        """Book transfers."""
        call = current()
        transfers = [transfer_from_proto(spec, call) for spec in request.transfers]
        results = await self._parts.ledger.post(transfers)
        return CreateTransfersResponse(results=[result_to_proto(result) for result in results])

    async def GetTransfers(  # noqa: N802 - named by the contract
        self, request: GetTransfersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetTransfersResponse:
        """Read transfers by id."""
        found = await _by_book(request.ids, "tfr", self._parts.reading.read_transfers)
        return GetTransfersResponse(transfers=[transfer_to_proto(stored) for stored in found])

    async def ListEntries(  # noqa: N802 - named by the contract
        self, request: ListEntriesRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListEntriesResponse:
        """List the entries of an account."""
        parts, account_id = self._parts, request.account_id
        book = book_of(account_id)
        account = (await parts.accounts.read(book, [account_id])).get(account_id)
        if account is None:
            raise AccountNotFoundError(account_id=account_id)
        filters = {"account_id": account_id}
        position = parts.tokens.read("account.entries", request.page_token, filters)
        limit = request.page_size or _ENTRIES_DEFAULT
        lines = await parts.reading.list_entries(
            book, account_id, after_version=int(position[0] or 0) if position else 0, limit=limit
        )
        token = ""
        if len(lines) == limit:
            token = parts.tokens.issue("account.entries", [lines[-1].version], filters)
        return ListEntriesResponse(
            entries=[entry_to_proto(line, account.normal_side) for line in lines],
            next_page_token=token,
        )

    async def SetAccountStatus(  # noqa: N802 - named by the contract
        self, request: SetAccountStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SetAccountStatusResponse:
        """Freeze, unfreeze or close an account."""
        call = current()
        name = AccountStatusMessage.Name(request.status).removeprefix("ACCOUNT_STATUS_")
        change = ChangeRequest(
            account_id=request.account_id,
            request_id=request.request_id,
            expected_version=request.expected_version,
            reason=request.reason,
            actor=call.principal.actor,
            tenant_id=call.principal.tenant_id,
            mode=str(call.principal.mode),
            biz_trace_id=call.biz_trace_id,
        )
        account = await set_account_status(
            self._parts.pool, self._parts.accounts, change, AccountStatus(name)
        )
        return SetAccountStatusResponse(account=account_to_proto(account))

    async def GetBusinessDate(  # noqa: N802 - named by the contract
        self, request: GetBusinessDateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetBusinessDateResponse:
        """Read the business date."""
        business_date = await self._parts.days.read(BOOK_DEFAULT)
        if business_date is None:
            raise NotFoundError(resource="business date")
        return GetBusinessDateResponse(business_date=business_date.isoformat())

    async def SumAccounts(  # noqa: N802 - named by the contract
        self, request: SumAccountsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SumAccountsResponse:
        """Sum all accounts by kind and currency."""
        principal = current().principal
        totals = await self._parts.reading.sum_accounts(principal.tenant_id, str(principal.mode))
        difference: dict[str, int] = {}
        for total in totals:
            off = total.debits_posted_minor - total.credits_posted_minor
            difference[total.currency_code] = difference.get(total.currency_code, 0) + off
        return SumAccountsResponse(
            totals=[account_total_to_proto(total) for total in totals],
            difference_minor=difference,
        )

    async def CheckBooks(  # noqa: N802 - named by the contract
        self, request: CheckBooksRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CheckBooksResponse:
        """Compare every account with the sum of its entries."""
        report = await self._parts.reading.check()
        return CheckBooksResponse(
            accounts=report.accounts, entries=report.entries, findings=report.findings
        )

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListStoryResponse:
        """Tell this service's part of a story."""
        return await list_story(self._parts.reading, self._parts.tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ListFactsResponse:
        """List provable facts."""
        return await list_facts(self._parts.reading, self._parts.tokens, request)


async def _by_book(ids: Sequence[str], prefix: str, read: Callable[..., Any]) -> list[Any]:
    """Read things by id, each in its book."""
    books: dict[int, list[str]] = {}
    for place, one in enumerate(ids):
        if not is_id(one, prefix):
            raise IdMalformedError(field=f"ids[{place}]")
        books.setdefault(book_of(one), []).append(one)
    answers = await asyncio.gather(*(read(book, wanted) for book, wanted in books.items()))
    return [found for answer in answers for found in answer.values()]
