"""Hostile texts in every call of the outer books: a typed refusal, and nothing was done."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hosted_services import calling, operator_call
from ledger_rpc import LedgerRpc, service_call, serving_ledger
from paymesh.account.v1 import (
    ACCOUNT_STATUS_DEBIT_FROZEN,
    AccountSpec,
    GetAccountsRequest,
    GetBalanceAtRequest,
    GetOwnerBalancesRequest,
    GetStatementRequest,
    GetTransfersRequest,
    ListAccountsRequest,
    ListEntriesRequest,
    ListFactsRequest,
    ListStoryRequest,
    OpenAccountsRequest,
    SetAccountBufferingRequest,
    SetAccountLimitsRequest,
    SetAccountStatusRequest,
)

from common.errors import Outcome, RemoteError
from common.ids import derive


@pytest.fixture(scope="module")
async def served(database_url: str) -> AsyncIterator[LedgerRpc]:
    async with serving_ledger(database_url) as ledger:
        await ledger.open_cast()
        yield ledger


_SPEC = {"owner_id": "ann", "kind": "user_available", "currency_code": "USD"}
_HUGE = "x" * 100_000
_ACCOUNT = "acc_00000000000000000000000000"


def _open(**changes: Any) -> OpenAccountsRequest:
    return OpenAccountsRequest(accounts=[AccountSpec(**({"id": _ACCOUNT} | _SPEC | changes))])


def _status(**changes: Any) -> SetAccountStatusRequest:
    fields = {
        "request_id": "r",
        "account_id": _ACCOUNT,
        "status": ACCOUNT_STATUS_DEBIT_FROZEN,
        "expected_version": 1,
        "reason": "because",
    }
    return SetAccountStatusRequest(**(fields | changes))


_CALLS: list[tuple[str, str, Any]] = [
    ("opening with a crooked id", "OpenAccounts", _open(id="acc_x")),
    ("opening with an id of the wrong alphabet", "OpenAccounts", _open(id="acc_" + "l" * 26)),
    ("opening for an owner with NUL", "OpenAccounts", _open(owner_id="ann\0")),
    ("opening for a huge owner", "OpenAccounts", _open(owner_id=_HUGE)),
    ("opening for nobody", "OpenAccounts", _open(owner_id="")),
    ("opening for a merchant with NUL", "OpenAccounts", _open(merchant_id="mer_\0")),
    ("opening an unknown kind", "OpenAccounts", _open(kind="treasure")),
    ("opening a kind with NUL", "OpenAccounts", _open(kind="user\0")),
    ("opening an unknown currency", "OpenAccounts", _open(currency_code="ABC")),
    ("opening with a limit below zero", "OpenAccounts", _open(credit_limit_minor=-1)),
    ("opening with a limit too large", "OpenAccounts", _open(credit_limit_minor=2**63 - 1)),
    ("opening a buffered receivable", "OpenAccounts", _open(kind="loss", is_buffered=True)),
    ("opening none", "OpenAccounts", OpenAccountsRequest()),
    ("reading a crooked id", "GetAccounts", GetAccountsRequest(ids=["acc_"])),
    ("reading an id with NUL", "GetAccounts", GetAccountsRequest(ids=["acc_\0"])),
    ("reading too many", "GetAccounts", GetAccountsRequest(ids=[_ACCOUNT] * 1001)),
    ("reading a crooked transfer", "GetTransfers", GetTransfersRequest(ids=["tfr_\0"])),
    ("listing for an owner with NUL", "ListAccounts", ListAccountsRequest(owner_id="ann\0")),
    (
        "listing with a false token",
        "ListAccounts",
        ListAccountsRequest(owner_id="a", page_token="x"),
    ),
    ("reading balances with NUL", "GetOwnerBalances", GetOwnerBalancesRequest(owner_id="usr_\0")),
    ("listing a crooked account", "ListEntries", ListEntriesRequest(account_id="acc_" + "u" * 26)),
    ("listing an account's lines, NUL", "ListEntries", ListEntriesRequest(account_id="acc_\0")),
    ("balance of a crooked account", "GetBalanceAt", GetBalanceAtRequest(account_id=_ACCOUNT)),
    (
        "statement of no day",
        "GetStatement",
        GetStatementRequest(account_id=_ACCOUNT, from_on="2026-02-30", to_on="2026-03-01"),
    ),
    (
        "statement backwards",
        "GetStatement",
        GetStatementRequest(account_id=_ACCOUNT, from_on="2026-03-02", to_on="2026-03-01"),
    ),
    ("a story with NUL", "ListStory", ListStoryRequest(subject_id="pay_\0")),
    ("a related id with NUL", "ListStory", ListStoryRequest(biz_trace_id="b", related_ids=["\0"])),
    ("facts of no kind", "ListFacts", ListFactsRequest(kind="kings")),
    ("a change without a reason", "SetAccountStatus", _status(reason="")),
    ("a reason with NUL", "SetAccountStatus", _status(reason="be\0cause")),
    ("a request id with NUL", "SetAccountStatus", _status(request_id="r\0")),
    ("an unknown status", "SetAccountStatus", _status(status=99)),
    ("a version below zero", "SetAccountStatus", _status(expected_version=-(2**63))),
]


@pytest.mark.parametrize(("name", "method", "request_"), _CALLS, ids=[c[0] for c in _CALLS])
async def test_calling_with_hostile_input_is_refused_and_does_nothing(
    served: LedgerRpc, name: str, method: str, request_: Any
) -> None:
    is_operators = method.startswith(("Set", "ListStory", "ListFacts"))
    stub = served.operator if is_operators else served.payment
    call = operator_call("operator") if is_operators else service_call()
    _aim(request_, served)
    with pytest.raises(RemoteError) as refused:
        await calling(call, lambda: getattr(stub, method)(request_))
    assert refused.value.outcome is Outcome.NOT_EXECUTED, name
    assert refused.value.remote_reason not in ("INTERNAL", "UNSPECIFIED", ""), (name, refused.value)
    assert {one.version for one in (await served.accounts()).values()} == {1}


def _aim(request: Any, served: LedgerRpc) -> None:
    """Let a call that is wrong in another way name an account that is there."""
    if getattr(request, "account_id", "") == _ACCOUNT:
        request.account_id = served.ids["A"]


@pytest.mark.parametrize("method", ["SetAccountLimits", "SetAccountBuffering"])
@pytest.mark.parametrize("field", ["request_id", "reason"])
async def test_changing_an_account_with_texts_that_no_database_takes_is_refused(
    served: LedgerRpc, method: str, field: str
) -> None:
    kind = SetAccountLimitsRequest if method == "SetAccountLimits" else SetAccountBufferingRequest
    fields = {"request_id": "r", "reason": "because"} | {field: "a\0b"}
    request = kind(account_id=served.ids["A"], expected_version=1, **fields)
    with pytest.raises(RemoteError) as refused:
        await calling(operator_call("operator"), lambda: getattr(served.operator, method)(request))
    assert refused.value.remote_reason == "FIELD_INVALID"


async def test_opening_one_id_twice_in_a_call_opens_it_once_or_names_what_differs(
    served: LedgerRpc,
) -> None:
    account_id = derive("acc", served.parent, "twice")
    spec = AccountSpec(id=account_id, **_SPEC)
    other = AccountSpec(id=account_id, **(_SPEC | {"owner_id": "eve"}))
    with pytest.raises(RemoteError) as refused:
        await served.open([spec, other])
    assert refused.value.remote_reason == "ACCOUNT_DIFFERS"
    found = await calling(
        service_call(), lambda: served.payment.GetAccounts(GetAccountsRequest(ids=[account_id]))
    )
    assert list(found.accounts) == []
    await served.open([spec, spec])
