"""Calls to other services, in and out as domain types."""

from __future__ import annotations

from grpc.aio import Channel
from paymesh.member.v1 import MemberServiceStub, RevealCardRequest
from pydantic import SecretStr

from common.errors import PaymeshError, RemoteError


class MemberCards:
    """Card numbers, from the service that keeps them."""

    def __init__(self, member: Channel) -> None:
        self._member = MemberServiceStub(member)

    async def reveal(self, card_id: str) -> SecretStr | None:
        """Return a bound card's number for one call of a bank; None when it is not bound.

        Raises:
            PaymeshError: member could not be asked.
        """
        try:
            answer = await self._member.RevealCard(RevealCardRequest(card_id=card_id))
        except PaymeshError as error:
            reason = error.remote_reason if isinstance(error, RemoteError) else error.reason
            if reason == "NOT_FOUND":
                return None
            raise
        return SecretStr(answer.card_number)
