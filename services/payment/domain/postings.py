"""What is booked: docs/money-flows.md as code, one function for each of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.ids import derive
from services.payment.domain.payments import Payment, Refund

AccountOf = Callable[[str, str], str]
"""(owner, kind) → account id, in the payment's currency and mode."""

PLATFORM: Final = "platform"


@dataclass(frozen=True, slots=True)
class Posting:
    """One transfer of a chain, before it goes to the ledger."""

    id: str
    kind: str
    """`SINGLE`, `PENDING`, `POST` or `VOID`."""
    movement: str
    reference_id: str
    debit_account_id: str = ""
    credit_account_id: str = ""
    amount_minor: int = 0
    pending_id: str = ""


Chain = tuple[Posting, ...]


def _single(
    noun: str, step: tuple[str | int, ...], movement: str, debit: str, credit: str, minor: int
) -> Posting:
    return Posting(derive("tfr", noun, *step), "SINGLE", movement, noun, debit, credit, minor)


def source_account(payment: Payment, account_of: AccountOf) -> str:
    """Return the account that the payer's money comes from, and goes back to."""
    if payment.is_internal:
        return account_of(payment.user_id, "user_available")
    return account_of(payment.channel, "channel_receivable")


def receive_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """The payer's money comes in: channel receivable or user → transit."""
    transit = account_of(PLATFORM, "payment_transit")
    return (
        _single(
            payment.id,
            ("receive", payment.attempt),
            "payment.receive",
            source_account(payment, account_of),
            transit,
            payment.amount.amount_minor,
        ),
    )


def settle_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """A claimed payment goes where it belongs: merchant and fee, or the user who recharges."""
    transit = account_of(PLATFORM, "payment_transit")
    if payment.order_type == "recharge":
        user = account_of(payment.user_id, "user_available")
        lines = [("settle", "payment.recharge", user, payment.amount.amount_minor)]
    else:
        merchant = account_of(payment.owner.merchant_id, "merchant_pending")
        fee = account_of(PLATFORM, "platform_fee")
        lines = [
            ("settle", "payment.settle", merchant, payment.net_minor),
            ("fee", "payment.fee", fee, payment.fee_minor),
        ]
    return tuple(
        _single(payment.id, (step,), movement, transit, credit, amount)
        for step, movement, credit, amount in lines
        if amount > 0
    )


def return_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """Money that lost its claim is back with the payer: transit → where it came from."""
    return (
        _single(
            payment.id,
            ("return",),
            "payment.return",
            account_of(PLATFORM, "payment_transit"),
            source_account(payment, account_of),
            payment.amount.amount_minor,
        ),
    )


def conflict_chain(payment: Payment, received_minor: int, account_of: AccountOf) -> Chain:
    """What does not fit its order waits in suspense, as much as really came."""
    return (
        _single(
            payment.id,
            ("conflict",),
            "payment.conflict",
            source_account(payment, account_of),
            account_of(PLATFORM, "suspense"),
            received_minor,
        ),
    )


def hold_sources(payment: Payment) -> tuple[str, ...]:
    """Return the kinds of account that a refund may be held on, in the order of trying."""
    if payment.order_type == "recharge":
        return ("user_available",)
    return ("merchant_pending", "merchant_settled")


def _hold_steps(refund: Refund) -> tuple[tuple[str, str, int], ...]:
    """Steps of a hold with their amounts: the merchant's part, the fee's part."""
    fee = refund.fee_returned_minor
    steps = (("hold", "refund.hold", refund.amount.amount_minor - fee),)
    return (*steps, ("fee_hold", "refund.fee_hold", fee))


def hold_chain(payment: Payment, refund: Refund, source_kind: str, account_of: AccountOf) -> Chain:
    """The merchant's money, and the fee that goes back, are held; never expires."""
    transit = account_of(PLATFORM, "refund_transit")
    owner = payment.user_id if source_kind == "user_available" else payment.owner.merchant_id
    debits = {
        "hold": account_of(owner, source_kind),
        "fee_hold": account_of(PLATFORM, "platform_fee"),
    }
    return tuple(
        Posting(
            hold_id(refund, step, source_kind),
            "PENDING",
            movement,
            refund.id,
            debits[step],
            transit,
            amount,
        )
        for step, movement, amount in _hold_steps(refund)
        if amount > 0
    )


def hold_id(refund: Refund, step: str, source_kind: str) -> str:
    """Return the id of one line of a hold: a refused attempt has burned the earlier ones."""
    return derive("tfr", refund.id, step, source_kind, refund.attempt)


def refund_chain(payment: Payment, refund: Refund, account_of: AccountOf) -> Chain:
    """The payer has its money back: the holds are posted, and transit goes to where it went."""
    posts = _resolve_chain(refund, "POST", "post")
    back = _single(
        refund.id,
        ("pay",),
        "refund.pay",
        account_of(PLATFORM, "refund_transit"),
        source_account(payment, account_of),
        refund.amount.amount_minor,
    )
    return (*posts, back)


def release_chain(refund: Refund) -> Chain:
    """The refund failed: the holds are given back."""
    return _resolve_chain(refund, "VOID", "void")


def _resolve_chain(refund: Refund, kind: str, verb: str) -> Chain:
    chain = []
    for step, movement, amount in _hold_steps(refund):
        if amount > 0:
            resolved = step.replace("hold", verb)
            chain.append(
                Posting(
                    derive("tfr", refund.id, resolved),
                    kind,
                    movement.replace("hold", verb),
                    refund.id,
                    pending_id=hold_id(refund, step, refund.source_kind),
                )
            )
    return tuple(chain)
