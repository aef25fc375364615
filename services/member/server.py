"""The servicer of member: converts, calls a flow, converts back."""

from __future__ import annotations

from typing import Any

import grpc.aio
from paymesh.member.v1 import (
    AddMerchantKeyRequest,
    AddMerchantKeyResponse,
    BindCardRequest,
    BindCardResponse,
    CreateUserRequest,
    CreateUserResponse,
    GetMerchantKeyRequest,
    GetMerchantKeyResponse,
    GetMerchantRequest,
    GetMerchantResponse,
    GetUserRequest,
    GetUserResponse,
    ListFactsRequest,
    ListFactsResponse,
    ListStoryRequest,
    ListStoryResponse,
    MemberServiceServicer,
    RegisterMerchantRequest,
    RegisterMerchantResponse,
    RevealCardRequest,
    RevealCardResponse,
    RevokeMerchantKeyRequest,
    RevokeMerchantKeyResponse,
    SetMerchantStatusRequest,
    SetMerchantStatusResponse,
)

from common.context import current
from common.errors import NotFoundError, PermissionDeniedError
from common.paging import PageTokens
from services.member.convert import (
    card_to_proto,
    key_to_proto,
    merchant_to_proto,
    status_from_proto,
    user_to_proto,
)
from services.member.domain import CardElements
from services.member.flows.bind_card import CardVault, NewCard, bind_card
from services.member.flows.create_user import NewUser, create_user
from services.member.flows.merchant_keys import NewKey, add_merchant_key, revoke_merchant_key
from services.member.flows.parts import Parts, may_see
from services.member.flows.register_merchant import NewMerchant, register_merchant
from services.member.flows.set_merchant_status import StatusChange, set_merchant_status
from services.member.story import list_facts, list_story

_REVEAL_CALLER = "channel"
Context = grpc.aio.ServicerContext[Any, Any]


class MemberServicer(MemberServiceServicer):
    """`paymesh.member.v1.MemberService`."""

    def __init__(
        self, parts: Parts, vault: CardVault, tokens: PageTokens, key_ttl_seconds: int
    ) -> None:
        self._parts = parts
        self._vault = vault
        self._tokens = tokens
        self._key_ttl_seconds = key_ttl_seconds

    async def RegisterMerchant(  # noqa: N802 - named by the contract
        self, request: RegisterMerchantRequest, context: Context
    ) -> RegisterMerchantResponse:
        """Register a merchant."""
        asked = NewMerchant(
            request.request_id, request.merchant_no, request.name, tuple(request.currency_codes)
        )
        merchant = await register_merchant(self._parts, asked, current())
        return RegisterMerchantResponse(merchant=merchant_to_proto(merchant))

    async def GetMerchant(  # noqa: N802 - named by the contract
        self, request: GetMerchantRequest, context: Context
    ) -> GetMerchantResponse:
        """Read a merchant."""
        principal = current().principal
        merchant = await self._parts.store.find_merchant(principal.tenant_id, request.merchant_id)
        if merchant is None or not may_see(principal, merchant.id):
            raise NotFoundError(resource="merchant", id=request.merchant_id)
        return GetMerchantResponse(merchant=merchant_to_proto(merchant))

    async def SetMerchantStatus(  # noqa: N802 - named by the contract
        self, request: SetMerchantStatusRequest, context: Context
    ) -> SetMerchantStatusResponse:
        """Change a merchant's status."""
        asked = StatusChange(
            request.request_id,
            request.merchant_id,
            status_from_proto(request.status),
            request.reason,
        )
        merchant = await set_merchant_status(self._parts, asked, current())
        return SetMerchantStatusResponse(merchant=merchant_to_proto(merchant))

    async def AddMerchantKey(  # noqa: N802 - named by the contract
        self, request: AddMerchantKeyRequest, context: Context
    ) -> AddMerchantKeyResponse:
        """Register a key."""
        asked = NewKey(request.request_id, request.merchant_id, request.public_key, request.mode)
        key = await add_merchant_key(self._parts, asked, current())
        return AddMerchantKeyResponse(key=key_to_proto(key))

    async def RevokeMerchantKey(  # noqa: N802 - named by the contract
        self, request: RevokeMerchantKeyRequest, context: Context
    ) -> RevokeMerchantKeyResponse:
        """Take a key back."""
        key = await revoke_merchant_key(self._parts, request.request_id, request.key_id, current())
        return RevokeMerchantKeyResponse(key=key_to_proto(key))

    async def GetMerchantKey(  # noqa: N802 - named by the contract
        self, request: GetMerchantKeyRequest, context: Context
    ) -> GetMerchantKeyResponse:
        """Read a key and its merchant."""
        tenant_id = current().principal.tenant_id
        store = self._parts.store
        key = await store.find_key(tenant_id, request.key_id)
        merchant = None if key is None else await store.find_merchant(tenant_id, key.merchant_id)
        if key is None or merchant is None:
            raise NotFoundError(resource="key", id=request.key_id)
        return GetMerchantKeyResponse(
            key=key_to_proto(key),
            merchant=merchant_to_proto(merchant),
            ttl_seconds=self._key_ttl_seconds,
        )

    async def CreateUser(  # noqa: N802 - named by the contract
        self, request: CreateUserRequest, context: Context
    ) -> CreateUserResponse:
        """Register a user."""
        asked = NewUser(request.request_id, request.merchant_user_no, tuple(request.currency_codes))
        user = await create_user(self._parts, asked, current())
        return CreateUserResponse(user=user_to_proto(user))

    async def GetUser(  # noqa: N802 - named by the contract
        self, request: GetUserRequest, context: Context
    ) -> GetUserResponse:
        """Read a user."""
        principal = current().principal
        user = await self._parts.store.find_user(
            principal.tenant_id, principal.mode, request.user_id
        )
        if user is None or not may_see(principal, user.merchant_id):
            raise NotFoundError(resource="user", id=request.user_id)
        return GetUserResponse(user=user_to_proto(user))

    async def BindCard(  # noqa: N802 - named by the contract
        self, request: BindCardRequest, context: Context
    ) -> BindCardResponse:
        """Bind a card."""
        elements = CardElements(
            request.card_number, request.holder_name, request.identity_number, request.phone
        )
        asked = NewCard(request.request_id, request.user_id, elements)
        card = await bind_card(self._parts, self._vault, asked, current())
        return BindCardResponse(card=card_to_proto(card))

    async def RevealCard(  # noqa: N802 - named by the contract
        self, request: RevealCardRequest, context: Context
    ) -> RevealCardResponse:
        """Read a card with its number."""
        call = current()
        if call.caller != _REVEAL_CALLER:
            raise PermissionDeniedError(method="RevealCard", caller=call.caller)
        principal = call.principal
        card = await self._parts.store.find_card(
            principal.tenant_id, principal.mode, request.card_id
        )
        if card is None or card.unbound_at is not None or not may_see(principal, card.merchant_id):
            raise NotFoundError(resource="card", id=request.card_id)
        elements = self._vault.open(card)
        return RevealCardResponse(
            card=card_to_proto(card),
            card_number=elements.number,
            holder_name=elements.holder_name,
            phone=elements.phone,
        )

    async def ListStory(  # noqa: N802 - named by the contract
        self, request: ListStoryRequest, context: Context
    ) -> ListStoryResponse:
        """Tell what became of the parties of a story, or of a party."""
        return await list_story(self._parts.store, self._tokens, request)

    async def ListFacts(  # noqa: N802 - named by the contract
        self, request: ListFactsRequest, context: Context
    ) -> ListFactsResponse:
        """List what has not ended."""
        return await list_facts(self._parts.store, self._tokens, request)
