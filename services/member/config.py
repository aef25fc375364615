"""Settings of member."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from common.settings import DEVELOPMENT_SECRET, PaymeshSettings


class MemberSettings(PaymeshSettings):
    """Settings of member, `PAYMESH_MEMBER_…`."""

    model_config = SettingsConfigDict(env_prefix="PAYMESH_MEMBER_")

    card_keys: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Master keys of card data: `id:secret`, several separated by commas, of which the first
    seals and all open."""

    card_hash_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    """Key of the hashes by which a bound card is found again; never changes."""

    key_ttl_seconds: int = Field(default=10, ge=0)
    """How long the edge may remember a merchant's key: a revocation is complete after this."""

    opening_seconds: float = Field(default=10.0, gt=0)
    """How long a party may be OPENING before its accounts are asked for again."""

    opening_poll_seconds: float = Field(default=5.0, gt=0)
    """Pause between looks for parties that stayed OPENING."""
