"""The servicer of the outer books: converts, calls a flow, converts back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc.aio
from paymesh.account.v1 import AccountStatus as AccountStatusMessage
from paymesh.account.v1 import (
    CreateTransferRequest,
    CreateTransferResponse,
    CreateTransfersRequest,
    CreateTransfersResponse,
    GetAccountsRequest,
    GetAccountsResponse,
    GetBusinessDateRequest,
    GetBusinessDateResponse,
    GetOwnerBalancesRequest,
    GetOwnerBalancesResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    OpenAccountsRequest,
    OpenAccountsResponse,
    SetAccountBufferingRequest,
    SetAccountBufferingResponse,
    SetAccountLimitsRequest,
    SetAccountLimitsResponse,
    SetAccountStatusRequest,
    SetAccountStatusResponse,
)

from common.context import ActorType, CallContext, current
from common.db.pool import Pool
from common.errors import NotFoundError
from common.ids import BOOK_DEFAULT
from common.paging import PageTokens
from services.account.convert.accounts import (
    account_to_proto,
    owner_balance_to_proto,
    results_to_proto,
    spec_from_proto,
    transfers_from_proto,
)
from services.account.domain.accounts import AccountStatus
from services.account.flows.change_account import (
    ChangeRequest,
    change_limits,
    set_account_buffering,
    set_account_status,
)
from services.account.flows.open_accounts import open_accounts
from services.account.flows.post_transfers import Ledger
from services.account.flows.read_statements import Drain
from services.account.server.reading import ReadingParts, ReadingServicer, read_by_book
from services.account.store.accounts import AccountStore
from services.account.store.days import DayStore
from services.account.store.reading import ReadingStore
from services.account.store.statements import StatementStore
from services.account.story import list_facts, list_story


@dataclass(frozen=True)
class Parts:
    """What the servicer is made of."""

    pool: Pool
    ledger: Ledger
    accounts: AccountStore
    days: DayStore
    reading: ReadingStore
    statements: StatementStore
    drain: Drain
    tokens: PageTokens


class AccountServicer(ReadingServicer):
    """`paymesh.account.v1.AccountService`."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(
            ReadingParts(
                kinds=parts.accounts.kinds,
                reading=parts.reading,
                statements=parts.statements,
                drain=parts.drain,
                tokens=parts.tokens,
            )
        )
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
        found = await read_by_book(request.ids, "acc", self._parts.accounts.read)
        principal = current().principal
        return GetAccountsResponse(
            accounts=[
                account_to_proto(account)
                for account in sorted(found, key=lambda account: str(account.id))
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

    async def CreateTransfer(  # noqa: N802 - named by the contract
        self, request: CreateTransferRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CreateTransferResponse:
        """Book one transfer."""
        call = current()
        transfers = transfers_from_proto((request.transfer,), call)
        results = await self._parts.ledger.post(transfers, may_force=_may_force(call))
        return CreateTransferResponse(result=results_to_proto(results)[0])

    async def CreateTransfers(  # noqa: N802 - named by the contract
        self, request: CreateTransfersRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> CreateTransfersResponse:
        """Book transfers."""
        call = current()
        transfers = transfers_from_proto(request.transfers, call)
        results = await self._parts.ledger.post(transfers, may_force=_may_force(call))
        return CreateTransfersResponse(results=results_to_proto(results))

    async def SetAccountStatus(  # noqa: N802 - named by the contract
        self, request: SetAccountStatusRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SetAccountStatusResponse:
        """Freeze, unfreeze or close an account."""
        name = AccountStatusMessage.Name(request.status).removeprefix("ACCOUNT_STATUS_")
        account = await set_account_status(
            self._parts.pool, self._parts.accounts, _change(request), AccountStatus(name)
        )
        return SetAccountStatusResponse(account=account_to_proto(account))

    async def SetAccountLimits(  # noqa: N802 - named by the contract
        self, request: SetAccountLimitsRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SetAccountLimitsResponse:
        """Set an account's credit limit and what a court has frozen on it."""
        account = await change_limits(
            self._parts.pool,
            self._parts.accounts,
            _change(request),
            credit_limit_minor=request.credit_limit_minor,
            court_frozen_minor=request.court_frozen_minor,
        )
        return SetAccountLimitsResponse(account=account_to_proto(account))

    async def SetAccountBuffering(  # noqa: N802 - named by the contract
        self, request: SetAccountBufferingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> SetAccountBufferingResponse:
        """Buffer an account's credits, or stop that."""
        account = await set_account_buffering(
            self._parts.pool,
            self._parts.accounts,
            _change(request),
            is_buffered=request.is_buffered,
        )
        return SetAccountBufferingResponse(account=account_to_proto(account))

    async def GetBusinessDate(  # noqa: N802 - named by the contract
        self, request: GetBusinessDateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> GetBusinessDateResponse:
        """Read the business date."""
        business_date = await self._parts.days.read(BOOK_DEFAULT)
        if business_date is None:
            raise NotFoundError(resource="business date")
        return GetBusinessDateResponse(business_date=business_date.isoformat())

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


def _change(
    request: SetAccountStatusRequest | SetAccountLimitsRequest | SetAccountBufferingRequest,
) -> ChangeRequest:
    """Return who changes which account, and why."""
    call = current()
    return ChangeRequest(
        account_id=request.account_id,
        request_id=request.request_id,
        expected_version=request.expected_version,
        reason=request.reason,
        actor=call.principal.actor,
        tenant_id=call.principal.tenant_id,
        mode=str(call.principal.mode),
        biz_trace_id=call.biz_trace_id,
    )


def _may_force(call: CallContext) -> bool:
    """Whether a call may take accounts below their limits: never one in a customer's name."""
    return call.principal.actor_type not in (ActorType.MERCHANT, ActorType.USER)
