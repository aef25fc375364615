"""A typed client of the ledger, `paymesh.account.v1.AccountService`.

It sends a call again, with the same ids, as long as nothing is known of its outcome and the
deadline has not passed: the ledger answers a repeat as the first time. So what it returns has
happened, and what it raises says whether anything may have.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import TracebackType
from typing import Any, Final, Literal, Protocol, Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from paymesh.account import orders
from paymesh.account.results import (
    BalanceAt,
    Statement,
    TransferOutcome,
    error_from,
    outcome_from,
)
from paymesh.account.v1 import (
    Account,
    AccountKind,
    AccountServiceStub,
    AccountSpec,
    CreateTransferRequest,
    CreateTransfersRequest,
    Entry,
    GetAccountsRequest,
    GetBalanceAtRequest,
    GetBusinessDateRequest,
    GetStatementRequest,
    GetTransfersRequest,
    ListAccountKindsRequest,
    ListAccountsRequest,
    ListEntriesRequest,
    OpenAccountsRequest,
    Transfer,
    TransferSpec,
)
from paymesh.mesh.connect import connect
from paymesh.mesh.errors import EXECUTED, NOT_EXECUTED, Failure, decode, message_too_large
from paymesh.mesh.frames import Limits, Metadata
from paymesh.mesh.identity import Identity

AnswerT = TypeVar("AnswerT")


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=_Page)

_PAGE: Final = 1000
_MESSAGE_BYTES_MAX: Final = Limits().message_bytes_max
_STORY_FORM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_SAME_REQUEST_AGAIN: Final = ("SAME_ID", "AFTER_DELAY")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long calls try."""

    deadline_seconds: float = 15.0
    """Longest that a call tries, over all its attempts: a restart of the ledger takes a second."""

    attempt_seconds: float = 3.0
    """Longest that one attempt waits for its answer."""

    pause_first_seconds: float = 0.05
    """Pause before the second attempt; each further one is twice as long, up to a second, and
    differs by chance, so that the callers of a restarting ledger do not come back as one."""

    monotonic: Callable[[], float] = time.monotonic


class LedgerClient:
    """The ledger, as a program sees it that keeps its books there.

    `identity` proves who calls. `story` is the business order that the calls belong to, for
    whoever follows it later (`paymesh trace`): 1 to 64 letters, digits and `._:-`, else ValueError.
    Must be made inside a running event loop; close it when done.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        identity: Identity | None = None,
        patience: Patience | None = None,
        story: str = "",
    ) -> None:
        if story and _STORY_FORM.fullmatch(story) is None:
            # The ledger would book all the same, and know of no story.
            raise ValueError(f"{story!r} is no name of a story")
        self._channel = channel
        self._stub = AccountServiceStub(channel)
        self._identity = identity
        self._patience = patience or Patience()
        self._baggage: Metadata = (("baggage", f"biz_trace_id={story}"),) if story else ()

    @classmethod
    def connect(
        cls,
        target: str,
        *,
        identity: Identity | None = None,
        way: Literal["unary", "stream"] = "stream",
        credentials: grpc.ChannelCredentials | None = None,
        patience: Patience | None = None,
    ) -> LedgerClient:
        """Return a client of the ledger at `host:port`.

        `stream` shares one stream among all calls, at a small part of the cost; `unary` is plain
        gRPC. `credentials` are those of (mutual) TLS.
        """
        channel = connect(target, way, credentials=credentials)
        return cls(channel, identity=identity, patience=patience)

    def in_story(self, story: str) -> LedgerClient:
        """Return the same client for the calls of one business order."""
        return LedgerClient(
            self._channel, identity=self._identity, patience=self._patience, story=story
        )

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # Accounts.

    async def open_accounts(self, specs: Iterable[AccountSpec]) -> list[Account]:
        """Open up to 1,000 accounts, all or none; those that are open already are left as they are.

        Raises:
            CallRefusedError: ACCOUNT_DIFFERS names the property in which an open one differs.
        """
        request = OpenAccountsRequest(accounts=specs)
        return list((await self._call(self._stub.OpenAccounts, request)).accounts)

    async def read_accounts(self, ids: Sequence[str]) -> dict[str, Account]:
        """Return up to 1,000 accounts by id; unknown ids are left out."""
        answer = await self._call(self._stub.GetAccounts, GetAccountsRequest(ids=ids))
        return {account.id: account for account in answer.accounts}

    async def list_accounts(self, owner_id: str) -> AsyncIterator[Account]:
        """Yield an owner's accounts, by id."""
        request = ListAccountsRequest(owner_id=owner_id, page_size=_PAGE)
        async for page in self._pages(self._stub.ListAccounts, request):
            for account in page.accounts:
                yield account

    async def list_kinds(self) -> list[AccountKind]:
        """Return the kinds of account that there are, by code."""
        answer = await self._call(self._stub.ListAccountKinds, ListAccountKindsRequest())
        return list(answer.kinds)

    # Transfers.

    async def book(self, specs: Iterable[TransferSpec]) -> list[TransferOutcome]:
        """Book up to 8,000 transfers in their order; return what became of each.

        Those that are linked (`orders.chain`) are booked all or none; the others each by itself.
        """
        request = CreateTransfersRequest(transfers=specs)
        answer = await self._call(self._stub.CreateTransfers, request)
        return [outcome_from(result) for result in answer.results]

    async def book_one(self, spec: TransferSpec) -> TransferOutcome:
        """Book one transfer; return what became of it."""
        request = CreateTransferRequest(transfer=spec)
        return outcome_from((await self._call(self._stub.CreateTransfer, request)).result)

    async def book_chain(self, specs: Iterable[TransferSpec]) -> list[TransferOutcome]:
        """Book all of the transfers or none."""
        return await self.book(orders.chain(specs))

    async def transfer(
        self,
        debit_account_id: str,
        credit_account_id: str,
        amount_minor: int,
        currency_code: str,
        **details: Unpack[orders.MoveDetails],
    ) -> TransferOutcome:
        """Move an amount at once; `details` are those of `orders.move`."""
        order = orders.move(
            debit_account_id, credit_account_id, amount_minor, currency_code, **details
        )
        return await self.book_one(order)

    async def hold(
        self,
        debit_account_id: str,
        credit_account_id: str,
        amount_minor: int,
        currency_code: str,
        **details: Unpack[orders.HoldDetails],
    ) -> TransferOutcome:
        """Hold an amount; `details` are those of `orders.hold`. The outcome's id is the hold's."""
        order = orders.hold(
            debit_account_id, credit_account_id, amount_minor, currency_code, **details
        )
        return await self.book_one(order)

    async def post(
        self, hold_id: str, amount_minor: int = 0, **details: Unpack[orders.PostDetails]
    ) -> TransferOutcome:
        """Move all of a held amount, or a part; `details` are those of `orders.post`."""
        return await self.book_one(orders.post(hold_id, amount_minor, **details))

    async def void(self, hold_id: str, **details: Unpack[orders.StepDetails]) -> TransferOutcome:
        """Give a held amount back; `details` are those of `orders.void`."""
        return await self.book_one(orders.void(hold_id, **details))

    async def read_transfers(self, ids: Sequence[str]) -> dict[str, Transfer]:
        """Return what is kept under up to 1,000 ids; others are left out."""
        answer = await self._call(self._stub.GetTransfers, GetTransfersRequest(ids=ids))
        return {transfer.spec.id: transfer for transfer in answer.transfers}

    # The past.

    async def list_entries(self, account_id: str) -> AsyncIterator[Entry]:
        """Yield all entries of an account, oldest first."""
        request = ListEntriesRequest(account_id=account_id, page_size=_PAGE)
        async for page in self._pages(self._stub.ListEntries, request):
            for entry in page.entries:
                yield entry

    async def read_balance_at(self, account_id: str, at: datetime) -> BalanceAt:
        """Return the balance that an account had at an instant, which has to be aware."""
        instant = Timestamp()
        instant.FromDatetime(at)
        request = GetBalanceAtRequest(account_id=account_id, at=instant)
        answer = await self._call(self._stub.GetBalanceAt, request)
        return BalanceAt(
            answer.balance_minor, answer.debits_minor, answer.credits_minor, answer.currency_code
        )

    async def read_statement(self, account_id: str, from_on: date, to_on: date) -> Statement:
        """Return an account's statement over business days, the first and the last, as a whole."""
        request = GetStatementRequest(
            account_id=account_id,
            from_on=from_on.isoformat(),
            to_on=to_on.isoformat(),
            page_size=_PAGE,
        )
        pages = [page async for page in self._pages(self._stub.GetStatement, request)]
        head = pages[0]
        return Statement(
            account=head.account,
            opening_balance_minor=head.opening_balance_minor,
            closing_balance_minor=head.closing_balance_minor,
            debits_minor=head.debits_minor,
            credits_minor=head.credits_minor,
            entries_count=head.entries_count,
            entries=[entry for page in pages for entry in page.entries],
        )

    async def read_business_date(self) -> date:
        """Return the ledger's business date."""
        answer = await self._call(self._stub.GetBusinessDate, GetBusinessDateRequest())
        return date.fromisoformat(answer.business_date)

    async def _pages(
        self, method: Callable[..., Awaitable[PageT]], request: Any
    ) -> AsyncIterator[PageT]:
        while True:
            page = await self._call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _call(self, method: Callable[..., Awaitable[AnswerT]], request: Any) -> AnswerT:
        """Call until there is an answer; raises a LedgerError when there is none in time."""
        if request.ByteSize() > _MESSAGE_BYTES_MAX:
            # Plain gRPC would name no reason for which it can be known that nothing was sent.
            failure = decode(message_too_large(_MESSAGE_BYTES_MAX, NOT_EXECUTED))
            raise error_from(failure, is_final=True, was_sent=False)
        patience = self._patience
        give_up_at = patience.monotonic() + patience.deadline_seconds
        pause = patience.pause_first_seconds
        was_sent = False
        while True:
            left = give_up_at - patience.monotonic()
            try:
                return await method(
                    request,
                    timeout=max(0.001, min(patience.attempt_seconds, left)),
                    metadata=self._metadata(),
                )
            except grpc.aio.AioRpcError as error:
                failure = decode(error)
            if failure.outcome == EXECUTED or _is_final(failure):
                raise error_from(failure, is_final=True, was_sent=was_sent)
            spread = pause * random.uniform(0.8, 1.2)  # noqa: S311 - chance that hides nothing
            pause_seconds = max(failure.retry_after_seconds or 0.0, spread)
            if patience.monotonic() + pause_seconds >= give_up_at:
                raise error_from(failure, is_final=False, was_sent=was_sent)
            was_sent = was_sent or failure.outcome != NOT_EXECUTED
            await asyncio.sleep(pause_seconds)
            pause = min(1.0, pause * 2)

    def _metadata(self) -> Metadata:
        proofs = () if self._identity is None else self._identity.metadata()
        return (*proofs, *self._baggage)


def _is_final(failure: Failure) -> bool:
    """Whether the same request would be refused again."""
    return failure.outcome == NOT_EXECUTED and failure.retry not in _SAME_REQUEST_AGAIN
