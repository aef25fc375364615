"""Binds bank cards: checked, sealed, and found again by keyed hashes only."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

import orjson

from common.context import CallContext
from common.db.history import HistoryRow, cause_of_request
from common.errors import IdConflictError, NotFoundError, PermissionDeniedError, StateConflictError
from common.sealing import Sealer
from services.member.domain import Card, CardElements, Status, is_card_number
from services.member.errors import CardNumberInvalidError, UserSuspendedError
from services.member.flows.parts import Parts, may_see

BOUND = "BOUND"


class CardVault:
    """Seals what a card is proven by, and makes the hashes that it is found by."""

    def __init__(self, sealer: Sealer, hash_key: bytes) -> None:
        self.sealer = sealer
        self._hash_key = hash_key

    def seal(self, card_id: str, elements: CardElements) -> bytes:
        """Return the elements, sealed for one row."""
        plain = orjson.dumps(
            [elements.number, elements.holder_name, elements.identity_number, elements.phone]
        )
        return self.sealer.seal(plain, context_of(card_id))

    def open(self, card: Card) -> CardElements:
        """Return the elements of a card; raises SealBrokenError."""
        return CardElements(*orjson.loads(self.sealer.open(card.sealed, context_of(card.id))))

    def hash_number(self, call: CallContext, number: str) -> bytes:
        """Return the keyed hash of a number; differs between worlds."""
        return self._hash("number", call.principal.tenant_id, call.principal.mode, number)

    def hash_elements(self, user_id: str, elements: CardElements) -> bytes:
        """Return the keyed hash of all that was said of a card."""
        return self._hash(
            "elements",
            user_id,
            elements.number,
            elements.holder_name,
            elements.identity_number,
            elements.phone,
        )

    def _hash(self, *parts: str) -> bytes:
        text = "\x1f".join(f"{len(part)}:{part}" for part in parts)
        return hmac.digest(self._hash_key, text.encode(), hashlib.sha256)


def context_of(card_id: str) -> str:
    """Return what a card's sealed elements are bound to."""
    return f"cards.sealed:{card_id}"


@dataclass(frozen=True, slots=True)
class NewCard:
    """What a merchant asks for."""

    request_id: str
    user_id: str
    elements: CardElements


async def bind_card(parts: Parts, vault: CardVault, asked: NewCard, call: CallContext) -> Card:
    """Return the card, bound now or before; binding a bound card again answers with it.

    Raises:
        CardNumberInvalidError: the number cannot be one.
        NotFoundError: the merchant has no such user.
        UserSuspendedError: the user may not do business.
        IdConflictError: the request's id stands for another card.
        StateConflictError: the number is bound already, with other elements.
    """
    principal = call.principal
    if not principal.merchant_id:
        raise PermissionDeniedError(method="BindCard", caller=call.caller)
    if not is_card_number(asked.elements.number):
        raise CardNumberInvalidError(field="card_number")
    user = await parts.store.find_user(principal.tenant_id, principal.mode, asked.user_id)
    if user is None or not may_see(principal, user.merchant_id):
        raise NotFoundError(resource="user", id=asked.user_id)
    if user.status is not Status.ACTIVE:
        raise UserSuspendedError(user_id=asked.user_id)
    now = parts.clock.now()
    card_id = parts.ids.new("crd")
    card = Card(
        id=card_id,
        tenant_id=user.tenant_id,
        mode=user.mode,
        merchant_id=user.merchant_id,
        user_id=user.id,
        last_four=asked.elements.number[-4:],
        bank_code="",
        key_id=vault.sealer.current,
        sealed=vault.seal(card_id, asked.elements),
        number_hash=vault.hash_number(call, asked.elements.number),
        elements_hash=vault.hash_elements(user.id, asked.elements),
        request_id=asked.request_id,
        actor=principal.actor,
        biz_trace_id=call.biz_trace_id,
        unbound_at=None,
        version=1,
        created_at=now,
        updated_at=now,
    )
    history = HistoryRow(
        noun="card",
        id=card.id,
        version=1,
        from_state="",
        to_state=BOUND,
        actor=card.actor,
        at=now,
        biz_trace_id=card.biz_trace_id,
        cause=cause_of_request(asked.request_id),
    )
    known, is_new = await parts.cards.submit((card, history))
    if not is_new:
        _check_same(known, card)
    return known


def _check_same(known: Card, asked: Card) -> None:
    if known.request_id == asked.request_id:
        for field, column in (
            ("user_id", "user_id"),
            ("card_number", "number_hash"),
            ("holder_name", "elements_hash"),
        ):
            if getattr(known, column) != getattr(asked, column):
                raise IdConflictError(id=asked.request_id, field=field)
    elif known.elements_hash != asked.elements_hash:
        raise StateConflictError(resource="card", state=BOUND)
