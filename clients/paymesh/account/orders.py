"""Orders to the ledger: what a transfer shall do, with an id where none is given.

`TransferSpec` is the contract's own message; these functions fill it for each kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict, Unpack

from paymesh.account.ids import new_id
from paymesh.account.v1 import (
    TRANSFER_KIND_PENDING,
    TRANSFER_KIND_POST,
    TRANSFER_KIND_SINGLE,
    TRANSFER_KIND_VOID,
    TransferSpec,
)


class StepDetails(TypedDict):
    """What is said of every transfer, beside its parties and amount."""

    movement: str
    """What it is, as a dotted name: `payment.receive`."""
    reference_id: str
    """The noun that it belongs to, of the caller's choosing: an order's number."""
    id: NotRequired[str]
    """`tfr_…`, made and stored before sending; a new one when not given."""


class MoveDetails(StepDetails, total=False):
    """Details of `move`."""

    value_on: str
    """The day that the money belongs to, when it was learned late: `YYYY-MM-DD`."""
    balancing_debit: bool
    """Take as much as the debited account can give, up to the amount."""
    balancing_credit: bool
    """Take as much as the credited account, one that grows by debits, still carries."""


class HoldDetails(StepDetails, total=False):
    """Details of `hold`."""

    timeout_seconds: int
    """Seconds until the hold expires; 0 is never."""
    balancing_debit: bool
    """Hold as much as the debited account can give, up to the amount."""


class PostDetails(StepDetails, total=False):
    """Details of `post`."""

    keep_rest: bool
    """The rest of a part stays held for further posts; else it goes back."""


def move(
    debit_account_id: str,
    credit_account_id: str,
    amount_minor: int,
    currency_code: str,
    **details: Unpack[MoveDetails],
) -> TransferSpec:
    """Return an order to move an amount at once; when balancing, up to that amount."""
    return TransferSpec(
        kind=TRANSFER_KIND_SINGLE,
        debit_account_id=debit_account_id,
        credit_account_id=credit_account_id,
        currency_code=currency_code,
        amount_minor=amount_minor,
        **_with_id(details, debit_account_id),
    )


def hold(
    debit_account_id: str,
    credit_account_id: str,
    amount_minor: int,
    currency_code: str,
    **details: Unpack[HoldDetails],
) -> TransferSpec:
    """Return an order to hold an amount until it is posted, voided or, with a timeout, expires."""
    return TransferSpec(
        kind=TRANSFER_KIND_PENDING,
        debit_account_id=debit_account_id,
        credit_account_id=credit_account_id,
        currency_code=currency_code,
        amount_minor=amount_minor,
        **_with_id(details, debit_account_id),
    )


def post(hold_id: str, amount_minor: int = 0, **details: Unpack[PostDetails]) -> TransferSpec:
    """Return an order to move a held amount: all of it (0), or a part.

    The rest of a part goes back, or stays held for further posts.
    """
    return TransferSpec(
        kind=TRANSFER_KIND_POST,
        pending_id=hold_id,
        amount_minor=amount_minor,
        **_with_id(details, hold_id),
    )


def void(hold_id: str, **details: Unpack[StepDetails]) -> TransferSpec:
    """Return an order to give a held amount back; a hold that has not arrived never will hold."""
    return TransferSpec(
        kind=TRANSFER_KIND_VOID,
        pending_id=hold_id,
        **_with_id(details, hold_id),
    )


def chain(orders: Iterable[TransferSpec]) -> list[TransferSpec]:
    """Return copies of orders, linked: all of them are booked, or none."""
    linked = []
    for order in orders:
        copy = TransferSpec()
        copy.CopyFrom(order)
        copy.linked = True
        linked.append(copy)
    if linked:
        linked[-1].linked = False
    return linked


def _with_id(details: Mapping[str, Any], beside: str) -> dict[str, Any]:
    return {**details, "id": details.get("id") or new_id("tfr", beside=beside)}
