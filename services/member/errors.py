"""What member refuses, each with its reason."""

from __future__ import annotations

from common.errors import PaymeshError


class CardNumberInvalidError(PaymeshError):
    """The card number fails its own check digit or length."""

    reason = "CARD_NUMBER_INVALID"


class PublicKeyInvalidError(PaymeshError):
    """The key is no Ed25519 public key."""

    reason = "PUBLIC_KEY_INVALID"


class MerchantNumberUsedError(PaymeshError):
    """The number in {field} stands for another already."""

    reason = "MERCHANT_NUMBER_USED"


class UserSuspendedError(PaymeshError):
    """The user {user_id} may not do business now."""

    reason = "USER_SUSPENDED"
