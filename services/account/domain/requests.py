"""Which requests are invalid whatever the books hold: nothing of these is kept under their id."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Final

from common.ids import ID_AHEAD_MAX, book_of, encode_time, is_id
from common.money import AMOUNT_MINOR_MAX, UnknownCurrencyError, exponent_of
from services.account.domain.transfers import Chain, Refusal, Transfer, TransferKind

WINDOW_DEFAULT: Final = timedelta(days=400)
"""How old an id may be: a year of pre-authorisations and refunds, and some weeks to find them."""

TIMEOUT_SECONDS_MAX: Final = 366 * 86_400
"""Longest life of a hold that expires by itself."""

OUTFLOW_PREFIXES: Final = ("payout.", "refund.", "withdraw.")
"""Movements whose holds back money that is leaving: only a final outcome may resolve those."""

FORCED_PREFIXES: Final = ("dispute.", "bank_return.", "correction.")
"""Movements that may take an account below its limit: the money is gone, whatever is there."""

_FIRST_STEPS: Final = frozenset({TransferKind.SINGLE, TransferKind.PENDING})
_LATER_STEPS: Final = frozenset({TransferKind.POST, TransferKind.VOID})
_MOVEMENT: Final = re.compile(r"^[a-z][a-z_]*(\.[a-z_]+)+$")
_TEXT_MAX: Final = 64
_CODE_MAX: Final = 14
_MOVEMENTS_KNOWN_MAX: Final = 256
# No money of this ledger is older; also stands for texts that are no date.
_VALUE_ON_FIRST: Final = date(2000, 1, 1)


class RequestRules:
    """The checks, for the ids that are taken at one instant."""

    def __init__(
        self, now: datetime, *, window: timedelta = WINDOW_DEFAULT, may_force: bool = False
    ) -> None:
        self._latest = encode_time(now + ID_AHEAD_MAX)
        self._earliest = encode_time(now - window)
        self._may_force = may_force

    def check(self, transfer: Transfer) -> Refusal | None:
        """Return why a transfer is invalid, or None."""
        problem = self._check_ids(transfer)
        if problem is None:
            if transfer.kind in _FIRST_STEPS:
                problem = _check_first_step(transfer)
            elif transfer.kind in _LATER_STEPS:
                problem = _check_later_step(transfer)
            else:
                problem = _broken("kind", "must be SINGLE, PENDING, POST or VOID")
        return problem or self._check_common(transfer)

    def check_chain(self, chain: Chain) -> tuple[Transfer, Refusal] | None:
        """Return the first invalid transfer of a chain and why, or None."""
        for transfer in chain:
            problem = self.check(transfer)
            if problem is not None:
                return transfer, problem
        if len(chain) > 1:
            return _check_linked(chain)
        return None

    def _check_ids(self, transfer: Transfer) -> Refusal | None:
        if not is_id(transfer.id, "tfr"):
            return Refusal("ID_MALFORMED", {"field": "id"})
        if not self._earliest <= transfer.id[4:14] <= self._latest:
            return Refusal("ID_OUT_OF_WINDOW", {"id": transfer.id})
        for field, prefix in (
            ("pending_id", "tfr"),
            ("debit_account_id", "acc"),
            ("credit_account_id", "acc"),
        ):
            text = getattr(transfer, field)
            if not text:
                continue
            if not is_id(text, prefix):
                return Refusal("ID_MALFORMED", {"field": field})
            if text[14:16] != transfer.id[14:16]:
                return Refusal("BOOK_MISMATCH", {"field": field})
        if transfer.pending_id[4:14] > self._latest:
            # Nobody can have made it, and a void of it would need a month of its own.
            return Refusal("ID_OUT_OF_WINDOW", {"id": transfer.pending_id, "field": "pending_id"})
        return None

    def _check_common(self, transfer: Transfer) -> Refusal | None:
        if transfer.currency_code and not is_currency(transfer.currency_code):
            code = transfer.currency_code[:_CODE_MAX]
            return Refusal("CURRENCY_UNKNOWN", {"currency_code": code})
        if len(transfer.movement) > _TEXT_MAX or not _is_movement(transfer.movement):
            return _broken("movement", "must be a dotted name of a movement")
        if not 0 < len(transfer.reference_id) <= _TEXT_MAX:
            return _broken("reference_id", "must have 1 to 64 characters")
        if not transfer.reference_id.isprintable():
            return _broken("reference_id", "must have printable characters only")
        if transfer.value_on is not None and transfer.value_on < _VALUE_ON_FIRST:
            return _broken("value_on", f"must be a date, YYYY-MM-DD, not before {_VALUE_ON_FIRST}")
        if not transfer.forced:
            return None
        if not self._may_force:
            return _broken("forced", "is not granted to this caller")
        if not transfer.movement.startswith(FORCED_PREFIXES):
            return _broken("forced", "belongs to chargebacks, bank returns and corrections only")
        return None


def is_currency(code: str) -> bool:
    """Say whether the registry knows the currency."""
    try:
        exponent_of(code)
    except UnknownCurrencyError:
        return False
    return True


@lru_cache(maxsize=_MOVEMENTS_KNOWN_MAX)
def _is_movement(text: str) -> bool:
    # Remembered: there are few, and each comes with thousands of transfers.
    return _MOVEMENT.fullmatch(text) is not None


def book_of_chain(chain: Chain) -> int:
    """Return the book of a chain whose ids were checked."""
    return book_of(chain[0].id)


def _broken(field: str, rule: str) -> Refusal:
    return Refusal("FIELD_INVALID", {"field": field, "rule": rule})


def _check_first_step(transfer: Transfer) -> Refusal | None:
    for field in ("debit_account_id", "credit_account_id", "currency_code"):
        if not getattr(transfer, field):
            return _broken(field, "is required")
    if transfer.debit_account_id == transfer.credit_account_id:
        return Refusal("ACCOUNTS_EQUAL", {"account_id": transfer.debit_account_id})
    if not 0 < transfer.amount_minor <= AMOUNT_MINOR_MAX:
        return Refusal("AMOUNT_OUT_OF_RANGE", {"field": "amount_minor"})
    if transfer.pending_id or transfer.keep_rest:
        return _broken("pending_id", "belongs to POST and VOID only")
    if transfer.forced and (transfer.balancing_debit or transfer.balancing_credit):
        return _broken("forced", "contradicts balancing")
    if transfer.timeout_seconds == 0:
        return None
    if transfer.kind != TransferKind.PENDING:
        return _broken("timeout_seconds", "belongs to PENDING only")
    if not 0 < transfer.timeout_seconds <= TIMEOUT_SECONDS_MAX:
        return _broken("timeout_seconds", "must be 0 to 366 days")
    if transfer.movement.startswith(OUTFLOW_PREFIXES):
        return _broken("timeout_seconds", "must be 0: a hold behind an outflow never expires")
    return None


def _check_later_step(transfer: Transfer) -> Refusal | None:
    if not transfer.pending_id:
        return _broken("pending_id", "is required")
    if transfer.pending_id == transfer.id:
        return _broken("pending_id", "is the transfer itself")
    if transfer.timeout_seconds or transfer.forced:
        return _broken("timeout_seconds", "belongs to PENDING only")
    if transfer.balancing_debit or transfer.balancing_credit:
        field = "balancing_debit" if transfer.balancing_debit else "balancing_credit"
        return _broken(field, "belongs to SINGLE and PENDING only")
    if transfer.kind == TransferKind.VOID:
        if transfer.amount_minor or transfer.keep_rest:
            return _broken("amount_minor", "must be 0: a void gives back all that is held")
    elif not 0 <= transfer.amount_minor <= AMOUNT_MINOR_MAX:
        return Refusal("AMOUNT_OUT_OF_RANGE", {"field": "amount_minor"})
    return None


def _check_linked(chain: Chain) -> tuple[Transfer, Refusal] | None:
    seen: set[str] = set()
    for transfer in chain:
        if transfer.id in seen:
            return transfer, _broken("id", "is used twice in one chain")
        if transfer.id[14:16] != chain[0].id[14:16]:
            return transfer, Refusal("BOOK_MISMATCH", {"field": "id"})
        seen.add(transfer.id)
    return None
