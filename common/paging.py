"""Page tokens: where a list goes on, opaque to readers and worthless when changed.

A token is bound to its list and to the filters it was made under, so that it cannot be carried to
another list, another merchant or another filter.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Final

import orjson
from pydantic import SecretStr

from common.errors import PageTokenInvalidError

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 200
"""A page that a person or a program reads in one go."""

_SIGNATURE_BYTES: Final = 16
_TOKEN_LENGTH_MAX: Final = 1024

Scalar = str | int | bool | None


def page_size_of(requested: int, largest: int = PAGE_SIZE_MAX) -> int:
    """Return how many items a page holds: what was asked for in bounds, or for zero the usual."""
    if requested <= 0:
        return min(PAGE_SIZE_DEFAULT, largest)
    return min(requested, largest)


class PageTokens:
    """Issues and reads the tokens of all lists of an installation."""

    def __init__(self, secret: SecretStr | str) -> None:
        if isinstance(secret, SecretStr):
            secret = secret.get_secret_value()
        self._key = hashlib.sha256(f"page tokens {secret}".encode()).digest()

    def issue(
        self, list_name: str, position: Sequence[Scalar], filters: Mapping[str, Scalar]
    ) -> str:
        """Return the token of the page after `position`, the last item's sort key."""
        body = orjson.dumps(list(position))
        signature = self._sign(list_name, filters, body)
        return base64.urlsafe_b64encode(signature + body).rstrip(b"=").decode()

    def read(
        self, list_name: str, token: str, filters: Mapping[str, Scalar]
    ) -> list[Scalar] | None:
        """Return the position that a token holds; None for no token, the first page.

        Raises:
            PageTokenInvalidError: it was not issued for this list and these filters.
        """
        if not token:
            return None
        if len(token) > _TOKEN_LENGTH_MAX or not token.isascii():
            raise PageTokenInvalidError
        try:
            data = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error) as error:
            raise PageTokenInvalidError from error
        signature, body = data[:_SIGNATURE_BYTES], data[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(list_name, filters, body)):
            raise PageTokenInvalidError
        position: list[Scalar] = orjson.loads(body)
        return position

    def _sign(self, list_name: str, filters: Mapping[str, Scalar], body: bytes) -> bytes:
        bound = orjson.dumps([list_name, dict(filters)], option=orjson.OPT_SORT_KEYS)
        digest = hmac.new(self._key, bound + b"\x00" + body, hashlib.sha256).digest()
        return digest[:_SIGNATURE_BYTES]
