"""What is read through the contract: pages, balances, statements, and nobody else's rows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hosted_services import calling, merchant_call
from paymesh.account.v1 import (
    TRANSFER_KIND_PENDING,
    TRANSFER_KIND_POST,
    AccountSpec,
    Entry,
    GetAccountsRequest,
    GetBalanceAtRequest,
    GetBalanceAtResponse,
    GetBusinessDateRequest,
    GetStatementRequest,
    GetStatementResponse,
    GetTransfersRequest,
    ListAccountKindsRequest,
    ListAccountsRequest,
    ListEntriesRequest,
    NormalSide,
    SumAccountsRequest,
)

from common.context import ActorType, CallContext, Mode
from common.errors import RemoteError
from services.account.chart_files import read_chart
from tests.integration.account.ledger_rpc import LedgerRpc, service_call, serving_ledger


@pytest.fixture(scope="module")
async def rpc(database_url: str) -> AsyncIterator[LedgerRpc]:
    async with serving_ledger(database_url) as one:
        yield one


@pytest.fixture
async def cast(rpc: LedgerRpc) -> LedgerRpc:
    """The service with a fresh cast of accounts."""
    await rpc.open_cast()
    return rpc


def strangers() -> list[CallContext]:
    """Callers of other worlds."""
    who: dict[str, Any] = {"actor_type": ActorType.SERVICE, "actor_id": "payment"}
    return [
        merchant_call("", **who, mode=Mode.LIVE),
        merchant_call("", **who, mode=Mode.SHADOW),
        merchant_call("", **who, tenant_id="other"),
    ]


def instant(at: datetime) -> Timestamp:
    """An instant, as the contract has it."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


async def ask(rpc: LedgerRpc, method: str, request: Any, call: CallContext | None = None) -> Any:
    """Ask as a service does."""
    stub = getattr(rpc.payment, method)
    return await calling(call or service_call(), lambda: stub(request))


async def refused(
    rpc: LedgerRpc, method: str, request: Any, call: CallContext | None = None
) -> Any:
    """Ask, and return the failure."""
    with pytest.raises(RemoteError) as caught:
        await ask(rpc, method, request, call)
    return caught.value


async def entries_of(rpc: LedgerRpc, account_id: str, page_size: int = 0) -> list[Entry]:
    """All entries of an account, page by page."""
    found: list[Entry] = []
    token = ""
    while True:
        request = ListEntriesRequest(account_id=account_id, page_size=page_size, page_token=token)
        page = await ask(rpc, "ListEntries", request)
        found += page.entries
        token = page.next_page_token
        if not token:
            return found
        assert len(page.entries) == page_size


async def statement(rpc: LedgerRpc, name: str, **changes: Any) -> GetStatementResponse:
    """A page of a statement; of today where no days are named."""
    today = (await ask(rpc, "GetBusinessDate", GetBusinessDateRequest())).business_date
    fields = {"account_id": rpc.ids[name], "from_on": today, "to_on": today, **changes}
    answer = await ask(rpc, "GetStatement", GetStatementRequest(**fields))
    assert isinstance(answer, GetStatementResponse)
    return answer


async def balance_at(rpc: LedgerRpc, name: str, at: datetime) -> GetBalanceAtResponse:
    """The balance at an instant."""
    request = GetBalanceAtRequest(account_id=rpc.ids[name], at=instant(at))
    answer = await ask(rpc, "GetBalanceAt", request)
    assert isinstance(answer, GetBalanceAtResponse)
    return answer


async def test_listing_entries_shows_balance_version_and_the_other_account(cast: LedgerRpc) -> None:
    results = await cast.post(
        cast.move(1, amount=100, value_on="2026-01-31"),
        cast.move(2, "A", "M", 30, kind=TRANSFER_KIND_PENDING),
        cast.move(
            3, "", "", 20, kind=TRANSFER_KIND_POST, pending_id=cast.transfer_id(2), currency_code=""
        ),
    )
    assert all(not result.reason for result in results)
    first, second = await entries_of(cast, cast.ids["A"])
    assert (first.credit_minor, first.debit_minor, first.balance_minor) == (100, 0, 100)
    assert (second.credit_minor, second.debit_minor, second.balance_minor) == (0, 20, 80)
    assert first.account_version < second.account_version
    assert [first.counter_account_id, second.counter_account_id] == [cast.ids["R"], cast.ids["M"]]
    assert [first.value_on, second.value_on] == ["2026-01-31", ""]
    assert [first.reference_id, first.movement] == ["ref-1", "test.move"]
    assert first.booked_at == results[0].booked_at
    assert not first.HasField("appended_at")
    (other,) = await entries_of(cast, cast.ids["M"])
    assert (other.counter_account_id, other.balance_minor) == (cast.ids["A"], 20)
    (receivable,) = await entries_of(cast, cast.ids["R"])
    assert receivable.balance_minor == 100  # it grows by debits


async def test_listing_in_pages_gives_each_entry_once(cast: LedgerRpc) -> None:
    await cast.post(*(cast.move(number, amount=number) for number in range(1, 13)))
    for page_size in (1, 4, 5, 12, 100):
        found = await entries_of(cast, cast.ids["A"], page_size)
        assert [entry.credit_minor for entry in found] == list(range(1, 13))


async def test_statement_of_today_adds_up_though_more_is_booked_between_pages(
    cast: LedgerRpc,
) -> None:
    await cast.post(*(cast.move(number, amount=10) for number in range(5)))
    first = await statement(cast, "A", page_size=2)
    await cast.post(cast.move("later", amount=7), cast.move("out", "A", "M", 1))
    second = await statement(cast, "A", page_size=2, page_token=first.next_page_token)
    third = await statement(cast, "A", page_size=2, page_token=second.next_page_token)
    pages = [first, second, third]
    assert [len(page.entries) for page in pages] == [2, 2, 1]
    assert third.next_page_token == ""
    assert third.account.balance.credits_posted_minor == 57
    for page in pages:
        assert (page.opening_balance_minor, page.closing_balance_minor) == (0, 50)
        assert (page.debits_minor, page.credits_minor, page.entries_count) == (0, 50, 5)
    again = await statement(cast, "A")
    assert (again.closing_balance_minor, again.entries_count) == (56, 7)


async def test_balance_at_an_instant_is_that_of_the_entries_until_then(cast: LedgerRpc) -> None:
    booked = [await cast.post_one(cast.move(n, amount=n)) for n in (1, 2, 4)]
    for count, result in enumerate(booked, start=1):
        at = result.booked_at.ToDatetime(UTC)
        answer = await balance_at(cast, "A", at)
        assert answer.credits_minor == [1, 3, 7][count - 1]
        assert (answer.balance_minor, answer.currency_code) == (answer.credits_minor, "USD")
        before = await balance_at(cast, "A", at - timedelta(microseconds=1))
        assert before.credits_minor == [0, 1, 3][count - 1]
    assert (await balance_at(cast, "R", datetime.now(UTC))).balance_minor == 7
    assert (await balance_at(cast, "A", datetime(1970, 1, 1, tzinfo=UTC))).balance_minor == 0


async def test_buffered_credits_count_by_when_they_were_appended(cast: LedgerRpc) -> None:
    account_id = cast.kit.ids.new("acc")
    await cast.open(
        [
            AccountSpec(
                id=account_id,
                owner_id="B",
                kind="merchant_pending",
                currency_code="USD",
                is_buffered=True,
            )
        ]
    )
    cast.ids["B"] = account_id
    appended = [await cast.post_one(cast.move(f"b{n}", "R", "B", n)) for n in (1, 2, 4)]
    assert all(result.is_buffered for result in appended)
    answer = await calling(operator_beside(service_call()), lambda: sums(cast))
    assert answer.difference_minor["USD"] == 0
    at = appended[1].booked_at.ToDatetime(UTC)
    assert (await balance_at(cast, "B", at)).balance_minor == 3
    assert (await statement(cast, "B")).closing_balance_minor == 7
    entries = await entries_of(cast, account_id)
    assert [entry.appended_at for entry in entries] == [one.booked_at for one in appended]
    assert all(entry.booked_at.ToDatetime(UTC) >= at for entry in entries)
    assert (await balance_at(cast, "B", at)).balance_minor == 3


async def test_reading_what_cannot_be_is_refused_with_the_field(cast: LedgerRpc) -> None:
    account_id = cast.ids["A"]
    tomorrow = instant(datetime.now(UTC) + timedelta(days=1))
    for at in (tomorrow, Timestamp(seconds=10**12)):
        error = await refused(
            cast, "GetBalanceAt", GetBalanceAtRequest(account_id=account_id, at=at)
        )
        assert (error.remote_reason, error.metadata["field"]) == ("FIELD_INVALID", "at")
    days = [("2026-02-30", "2026-03-01", "from_on"), ("2026-03-02", "2026-03-01", "to_on")]
    for from_on, to_on, field in days:
        request = GetStatementRequest(account_id=account_id, from_on=from_on, to_on=to_on)
        error = await refused(cast, "GetStatement", request)
        assert (error.remote_reason, error.metadata["field"]) == ("FIELD_INVALID", field)


async def test_reading_an_account_of_another_world_finds_none(cast: LedgerRpc) -> None:
    result = await cast.post_one(cast.move(1))
    account_id = cast.ids["A"]
    asked = [
        ("ListEntries", ListEntriesRequest(account_id=account_id)),
        ("GetBalanceAt", GetBalanceAtRequest(account_id=account_id, at=result.booked_at)),
        (
            "GetStatement",
            GetStatementRequest(account_id=account_id, from_on="2026-01-01", to_on="2030-01-01"),
        ),
    ]
    for stranger in strangers():
        for method, request in asked:
            error = await refused(cast, method, request, stranger)
            assert error.remote_reason == "ACCOUNT_NOT_FOUND"
        request = GetTransfersRequest(ids=[result.transfer_id])
        assert not (await ask(cast, "GetTransfers", request, stranger)).transfers
        owned = ListAccountsRequest(owner_id="A")
        assert not (await ask(cast, "ListAccounts", owned, stranger)).accounts
        assert not (await calling(operator_beside(stranger), lambda: sums(cast))).totals
    unknown = ListEntriesRequest(account_id=cast.kit.ids.new("acc"))
    assert (await refused(cast, "ListEntries", unknown)).remote_reason == "ACCOUNT_NOT_FOUND"


def operator_beside(call: CallContext) -> CallContext:
    """An operator of the same world."""
    principal = replace(
        call.principal, actor_type=ActorType.OPERATOR, actor_id="ada", roles=("operator",)
    )
    return replace(call, principal=principal)


async def sums(rpc: LedgerRpc) -> Any:
    """All accounts of the bound caller's world, summed."""
    return await rpc.operator.SumAccounts(SumAccountsRequest())


async def test_page_token_of_another_question_is_refused(cast: LedgerRpc) -> None:
    await cast.post(*(cast.move(number) for number in range(4)))
    page = await ask(cast, "ListEntries", ListEntriesRequest(account_id=cast.ids["A"], page_size=1))
    days = {"from_on": "2026-01-01", "to_on": "2030-01-01", "page_size": 1}
    told = await statement(cast, "A", **days)
    assert len(told.next_page_token) <= 200
    other = ListEntriesRequest(account_id=cast.ids["R"], page_token=page.next_page_token)
    wrong = [
        ("ListEntries", other),
        ("ListEntries", ListEntriesRequest(account_id=cast.ids["A"], page_token="AAAA")),
        (
            "ListEntries",
            ListEntriesRequest(account_id=cast.ids["A"], page_token=told.next_page_token),
        ),
        (
            "GetStatement",
            GetStatementRequest(
                account_id=cast.ids["A"],
                from_on="2026-01-02",
                to_on="2030-01-01",
                page_token=told.next_page_token,
            ),
        ),
        ("ListAccounts", ListAccountsRequest(owner_id="A", page_token=page.next_page_token)),
    ]
    for method, request in wrong:
        assert (await refused(cast, method, request)).remote_reason == "PAGE_TOKEN_INVALID"
    same = ListEntriesRequest(account_id=cast.ids["A"], page_token=page.next_page_token)
    stranger = strangers()[0]
    assert (
        await refused(cast, "ListEntries", same, stranger)
    ).remote_reason == "PAGE_TOKEN_INVALID"


async def test_listing_an_owners_accounts_is_paged_by_id(cast: LedgerRpc) -> None:
    owner = cast.kit.ids.new("usr")
    ids = sorted(cast.kit.ids.new("acc") for _ in range(5))
    await cast.open(
        [
            AccountSpec(id=one, owner_id=owner, kind="user_available", currency_code="USD")
            for one in ids
        ]
    )
    found: list[str] = []
    token = ""
    while True:
        request = ListAccountsRequest(owner_id=owner, page_size=2, page_token=token)
        page = await ask(cast, "ListAccounts", request)
        found += [account.id for account in page.accounts]
        token = page.next_page_token
        if not token:
            break
    assert found == ids
    assert not (await ask(cast, "ListAccounts", ListAccountsRequest(owner_id="nobody"))).accounts


async def test_reading_accounts_of_several_books_gives_them_by_id(cast: LedgerRpc) -> None:
    ids = [cast.kit.ids.new("acc", book=book) for book in (0, 2, 1, 0, 2, 1)]
    mixed = [ids[place] for place in (1, 0, 4, 2, 3, 5)]
    await cast.open(
        [
            AccountSpec(id=one, owner_id="A", kind="user_available", currency_code="USD")
            for one in mixed
        ]
    )
    unknown = cast.kit.ids.new("acc")
    request = GetAccountsRequest(ids=[*mixed, unknown, mixed[0]])
    answer = await ask(cast, "GetAccounts", request)
    assert [account.id for account in answer.accounts] == sorted(ids)


async def test_listing_kinds_gives_the_registry(cast: LedgerRpc) -> None:
    kinds = (await ask(cast, "ListAccountKinds", ListAccountKindsRequest())).kinds
    registry = read_chart().kinds
    assert [kind.code for kind in kinds] == sorted(registry)
    for kind in kinds:
        known = registry[kind.code]
        assert NormalSide.Name(kind.normal_side) == f"NORMAL_SIDE_{known.normal_side}"
        assert (kind.owner, kind.purpose) == (known.owner, known.purpose)
        assert (kind.may_go_negative, kind.subject_code) == (
            known.may_go_negative,
            known.subject_code,
        )
