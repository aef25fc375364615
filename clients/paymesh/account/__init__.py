"""Names that every caller of the ledger shares: which account belongs to whom.

Account ids are derived from owner, kind and currency, so that nobody has to look one up before
money is moved, and two services always mean the same account.
"""

from __future__ import annotations

import hashlib
from typing import Final

PLATFORM_OWNER: Final = "platform"
"""Owner of the platform's own accounts."""

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_HEAD_LENGTH: Final = 12
_RANDOM_LENGTH: Final = 14


def account_id_for(
    owner_id: str, kind: str, currency_code: str, *, tenant_id: str, mode: str, book: int = 0
) -> str:
    """Return the id of an owner's account of one kind and currency.

    An owner with an id of its own (`usr_…`, `mer_…`) lends the account its time and book; the
    platform and the channels (owner: the channel's code) have accounts in every book, named by
    `book`.
    """
    if len(owner_id) == 30 and owner_id[3:4] == "_":
        head = owner_id[4 : 4 + _HEAD_LENGTH]
    else:
        head = "0" * 10 + _ALPHABET[book // 32] + _ALPHABET[book % 32]
    text = "\x1f".join((owner_id, kind, currency_code, tenant_id, mode))
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:9], "big")
    letters = []
    for _ in range(_RANDOM_LENGTH):
        letters.append(_ALPHABET[value & 31])
        value >>= 5
    return f"acc_{head}{''.join(reversed(letters))}"
