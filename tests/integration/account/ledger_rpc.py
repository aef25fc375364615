"""The ledger as its callers see it: behind the contract and the whole middleware."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from hosted_services import HostedKit, calling, hosting, merchant_call
from paymesh.account.v1 import (
    TRANSFER_KIND_SINGLE,
    Account,
    AccountServiceStub,
    AccountSpec,
    CreateTransferRequest,
    CreateTransfersRequest,
    GetAccountsRequest,
    GetTransfersRequest,
    OpenAccountsRequest,
    Transfer,
    TransferResult,
    TransferSpec,
)

import services.account.wiring
from common.context import ActorType, CallContext
from common.ids import derive

CAST: Mapping[str, str] = {
    "R": "channel_receivable",
    "A": "user_available",
    "M": "merchant_pending",
    "F": "platform_fee",
}


def service_call() -> CallContext:
    """Return the circumstances of a call that a service makes."""
    return merchant_call("", actor_type=ActorType.SERVICE, actor_id="payment")


@dataclass
class LedgerRpc:
    """Stubs of two callers, and a cast of accounts whose ids end in the same parent."""

    kit: HostedKit
    payment: AccountServiceStub
    operator: AccountServiceStub
    parent: str = ""
    ids: dict[str, str] = field(default_factory=dict)

    async def open_cast(self) -> None:
        """Open the cast anew; `parent` is the parent of all ids of this test."""
        self.parent = self.kit.ids.new("tst")
        self.ids = {name: derive("acc", self.parent, name) for name in CAST}
        await self.open(
            [
                AccountSpec(id=self.ids[name], owner_id=name, kind=kind, currency_code="USD")
                for name, kind in CAST.items()
            ]
        )

    async def open(self, specs: Sequence[AccountSpec]) -> None:
        """Open accounts."""
        request = OpenAccountsRequest(accounts=specs)
        await calling(service_call(), lambda: self.payment.OpenAccounts(request))

    def transfer_id(self, name: str | int) -> str:
        """The id that a name stands for."""
        return derive("tfr", self.parent, name)

    def move(
        self, name: str | int, debit: str = "R", credit: str = "A", amount: int = 5, **changes: Any
    ) -> TransferSpec:
        """A movement between two of the cast."""
        fields: dict[str, Any] = {
            "id": self.transfer_id(name),
            "kind": TRANSFER_KIND_SINGLE,
            "debit_account_id": self.ids.get(debit, debit),
            "credit_account_id": self.ids.get(credit, credit),
            "currency_code": "USD",
            "amount_minor": amount,
            "movement": "test.move",
            "reference_id": f"ref-{name}",
        }
        return TransferSpec(**(fields | changes))

    async def post(self, *specs: TransferSpec) -> list[TransferResult]:
        """Book transfers in one call."""
        request = CreateTransfersRequest(transfers=specs)
        answer = await calling(service_call(), lambda: self.payment.CreateTransfers(request))
        return list(answer.results)

    async def post_one(self, spec: TransferSpec) -> TransferResult:
        """Book one transfer in a call of its own."""
        request = CreateTransferRequest(transfer=spec)
        answer = await calling(service_call(), lambda: self.payment.CreateTransfer(request))
        result: TransferResult = answer.result
        return result

    async def kept(self, *ids: str) -> dict[str, Transfer]:
        """What is kept under ids."""
        request = GetTransfersRequest(ids=ids)
        answer = await calling(service_call(), lambda: self.payment.GetTransfers(request))
        return {one.spec.id: one for one in answer.transfers}

    async def accounts(self) -> dict[str, Account]:
        """The cast as it stands, by name."""
        request = GetAccountsRequest(ids=list(self.ids.values()))
        answer = await calling(service_call(), lambda: self.payment.GetAccounts(request))
        found = {one.id: one for one in answer.accounts}
        return {name: found[account_id] for name, account_id in self.ids.items()}


@asynccontextmanager
async def serving_ledger(database_url: str) -> AsyncIterator[LedgerRpc]:
    """Host the account service for one module."""
    async with hosting(database_url, [services.account.wiring], {}) as kit:
        yield LedgerRpc(
            kit,
            AccountServiceStub(kit.channel("payment", "account")),
            AccountServiceStub(kit.channel("operator", "account")),
        )
