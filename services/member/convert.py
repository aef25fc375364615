"""Domain types of member as messages of its contract."""

from __future__ import annotations

from paymesh.member.v1 import Card as CardMessage
from paymesh.member.v1 import MemberStatus
from paymesh.member.v1 import Merchant as MerchantMessage
from paymesh.member.v1 import MerchantKey as MerchantKeyMessage
from paymesh.member.v1 import User as UserMessage

from services.member.domain import Card, Merchant, MerchantKey, Status, User

_STATUSES = {
    Status.OPENING: MemberStatus.MEMBER_STATUS_OPENING,
    Status.ACTIVE: MemberStatus.MEMBER_STATUS_ACTIVE,
    Status.SUSPENDED: MemberStatus.MEMBER_STATUS_SUSPENDED,
    Status.CLOSED: MemberStatus.MEMBER_STATUS_CLOSED,
}
_FROM_PROTO = {message: status for status, message in _STATUSES.items()}


def status_from_proto(status: MemberStatus.ValueType) -> Status:
    """Return the status; validation has refused what is none."""
    return _FROM_PROTO[status]


def merchant_to_proto(merchant: Merchant) -> MerchantMessage:
    """Return the message of a merchant."""
    message = MerchantMessage(
        id=merchant.id,
        merchant_no=merchant.merchant_no,
        name=merchant.name,
        status=_STATUSES[merchant.status],
        currency_codes=merchant.currency_codes,
        version=merchant.version,
    )
    message.created_at.FromDatetime(merchant.created_at)
    return message


def key_to_proto(key: MerchantKey) -> MerchantKeyMessage:
    """Return the message of a key."""
    message = MerchantKeyMessage(
        id=key.id, merchant_id=key.merchant_id, public_key=key.public_key, mode=key.mode
    )
    message.created_at.FromDatetime(key.created_at)
    if key.revoked_at is not None:
        message.revoked_at.FromDatetime(key.revoked_at)
    return message


def user_to_proto(user: User) -> UserMessage:
    """Return the message of a user."""
    message = UserMessage(
        id=user.id,
        merchant_id=user.merchant_id,
        merchant_user_no=user.merchant_user_no,
        status=_STATUSES[user.status],
        version=user.version,
    )
    message.created_at.FromDatetime(user.created_at)
    return message


def card_to_proto(card: Card) -> CardMessage:
    """Return the message of a card: what may be shown of it."""
    message = CardMessage(
        id=card.id, user_id=card.user_id, last_four=card.last_four, bank_code=card.bank_code
    )
    message.created_at.FromDatetime(card.created_at)
    if card.unbound_at is not None:
        message.unbound_at.FromDatetime(card.unbound_at)
    return message
