"""Open accounts: all of a call or none, and a repeat answers as the first time."""

from __future__ import annotations

from collections.abc import Sequence

from common.db.pool import Pool
from common.errors import (
    AmountOutOfRangeError,
    CurrencyUnknownError,
    FieldInvalidError,
    IdMalformedError,
)
from common.ids import book_of, is_id
from common.money import AMOUNT_MINOR_MAX
from services.account.domain.accounts import (
    Account,
    AccountSpec,
    first_account_difference,
    obstacle_to_buffering,
)
from services.account.domain.kinds import Kinds
from services.account.domain.requests import is_currency
from services.account.errors import AccountDiffersError
from services.account.store.accounts import AccountStore


async def open_accounts(
    pool: Pool, store: AccountStore, specs: Sequence[AccountSpec]
) -> list[Account]:
    """Open accounts; return them in the order of the call, as they stand.

    Raises:
        FieldInvalidError, IdMalformedError, CurrencyUnknownError, AmountOutOfRangeError: a
            request that is never valid.
        AccountDiffersError: an account is open with another property; nothing was opened.
    """
    for place, spec in enumerate(specs):
        _check(spec, store.kinds, f"accounts[{place}]")
    by_book: dict[int, list[AccountSpec]] = {}
    for spec in specs:
        by_book.setdefault(book_of(spec.id), []).append(spec)
    opened: dict[str, Account] = {}
    async with pool.transaction() as connection:
        for book, of_book in sorted(by_book.items()):
            opened.update(await store.insert(connection, book, of_book))
        for spec in specs:
            different = first_account_difference(spec, opened[spec.id])
            if different is not None:
                raise AccountDiffersError(account_id=spec.id, field=different)
    return [opened[spec.id] for spec in specs]


def _check(spec: AccountSpec, kinds: Kinds, field: str) -> None:
    if not is_id(spec.id, "acc"):
        raise IdMalformedError(field=f"{field}.id")
    if spec.kind not in kinds:
        raise FieldInvalidError(field=f"{field}.kind", rule="is no kind of account")
    if not is_currency(spec.currency_code):
        raise CurrencyUnknownError(currency_code=spec.currency_code, field=f"{field}.currency_code")
    if not spec.owner_id:
        raise FieldInvalidError(field=f"{field}.owner_id", rule="is required")
    if spec.is_buffered:
        rule = obstacle_to_buffering(spec.kind, kinds[spec.kind].normal_side)
        if rule is not None:
            raise FieldInvalidError(field=f"{field}.is_buffered", rule=rule)
    if not 0 <= spec.credit_limit_minor <= AMOUNT_MINOR_MAX:
        raise AmountOutOfRangeError(field=f"{field}.credit_limit_minor")
