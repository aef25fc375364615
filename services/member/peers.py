"""Calls to the ledger: opening the accounts of a party."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio
from paymesh.account import account_id_for
from paymesh.account.v1 import AccountServiceStub, AccountSpec, OpenAccountsRequest

from common.context import ActorType, CallContext, Mode, Principal, bound
from services.member.domain import Opening


class AccountPeer:
    """Opens accounts under the ids that everybody derives."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = AccountServiceStub(channel)

    async def open_accounts(self, openings: Sequence[Opening]) -> None:
        """Open accounts, one call for each tenant and world; a repeat changes nothing.

        Raises:
            PaymeshError: some may be open, some not.
        """
        worlds: dict[tuple[str, str], list[AccountSpec]] = {}
        for opening in openings:
            worlds.setdefault((opening.tenant_id, opening.mode), []).extend(_specs(opening))
        for (tenant_id, mode), specs in worlds.items():
            principal = Principal(
                tenant_id=tenant_id,
                mode=Mode(mode),
                actor_type=ActorType.SERVICE,
                actor_id="member",
            )
            # Whoever came first gave the batch its circumstances; they are nobody else's.
            with bound(CallContext(principal=principal, caller="member")):
                await self._stub.OpenAccounts(OpenAccountsRequest(accounts=specs))


def _specs(opening: Opening) -> list[AccountSpec]:
    return [
        AccountSpec(
            id=account_id_for(
                opening.owner_id,
                kind,
                currency_code,
                tenant_id=opening.tenant_id,
                mode=opening.mode,
            ),
            owner_id=opening.owner_id,
            kind=kind,
            currency_code=currency_code,
            merchant_id=opening.merchant_id,
        )
        for kind in opening.kinds
        for currency_code in opening.currency_codes
    ]
