"""What is booked: docs/money-flows.md as code, one function for each of its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from common.ids import derive
from services.payment.domain.payments import Payment, Refund, Tries

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


@dataclass(frozen=True, slots=True)
class Booked:
    """The ledger booked a chain, now or before."""

    business_date: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The ledger refused a chain for ever; nothing of it is booked."""

    reason: str


def _single(
    noun: str, step: tuple[str | int, ...], movement: str, debit: str, credit: str, minor: int
) -> Posting:
    return Posting(derive("tfr", noun, *step), "SINGLE", movement, noun, debit, credit, minor)


def _again(tries: Tries, step: str) -> tuple[int, ...]:
    """Return what a step's ids end with: nothing at the first try."""
    return (tries[step],) if step in tries else ()


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
            ("receive", payment.attempt, *_again(payment.tries, "receive")),
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
    again = _again(payment.tries, "settle")
    return tuple(
        _single(payment.id, (step, *again), movement, transit, credit, amount)
        for step, movement, credit, amount in lines
        if amount > 0
    )


def return_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """Money that lost its claim is back with the payer: transit → where it came from."""
    return (
        _single(
            payment.id,
            ("return", *_again(payment.tries, "return")),
            "payment.return",
            account_of(PLATFORM, "payment_transit"),
            source_account(payment, account_of),
            payment.amount.amount_minor,
        ),
    )


def conflict_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """What does not fit its order waits in suspense, as much as really came, in its currency."""
    minor = payment.money_in.amount_minor
    step: tuple[str | int, ...] = ("conflict", *_again(payment.tries, "conflict"))
    source, suspense = source_account(payment, account_of), account_of(PLATFORM, "suspense")
    # A channel that says it took nothing has moved nothing.
    if minor <= 0:
        return ()
    return (_single(payment.id, step, "payment.conflict", source, suspense, minor),)


def conflict_return_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """What did not fit its order is back with the payer: suspense → where it came from."""
    minor = payment.money_in.amount_minor
    step: tuple[str | int, ...] = ("conflict_return", *_again(payment.tries, "conflict_return"))
    source, suspense = source_account(payment, account_of), account_of(PLATFORM, "suspense")
    if minor <= 0:
        return ()
    return (_single(payment.id, step, "payment.conflict_return", suspense, source, minor),)


def unclaim_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """The channel refuses to give it back: transit or suspense → unclaimed, kept for the payer."""
    kept_in = "payment_transit" if payment.received is None else "suspense"
    return (
        _single(
            payment.id,
            ("unclaim", *_again(payment.tries, "unclaim")),
            "payment.unclaim",
            account_of(PLATFORM, kept_in),
            account_of(PLATFORM, "unclaimed"),
            payment.money_in.amount_minor,
        ),
    )


def unclaimed_return_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """The channel gave back what is kept for the payer: unclaimed → where it came from."""
    return (
        _single(
            payment.id,
            ("unclaimed_return", *_again(payment.tries, "unclaimed_return")),
            "payment.unclaimed_return",
            account_of(PLATFORM, "unclaimed"),
            source_account(payment, account_of),
            payment.money_in.amount_minor,
        ),
    )


def late_return_chain(payment: Payment, account_of: AccountOf) -> Chain:
    """The channel gave all of it back once more: loss → where it came from, by its number."""
    return (
        _single(
            payment.id,
            ("late_return", payment.late_returns + 1, *_again(payment.tries, "late_return")),
            "payment.late_return",
            account_of(PLATFORM, "loss"),
            source_account(payment, account_of),
            payment.money_in.amount_minor,
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
        ("pay", *_again(refund.tries, "post")),
        "refund.pay",
        account_of(PLATFORM, "refund_transit"),
        source_account(payment, account_of),
        refund.amount.amount_minor,
    )
    return (*posts, back)


def release_chain(refund: Refund) -> Chain:
    """The refund failed: the holds are given back."""
    return _resolve_chain(refund, "VOID", "void")


def late_chain(payment: Payment, refund: Refund, account_of: AccountOf) -> Chain:
    """The channel gave back what had failed here: loss → channel receivable; no hold stands."""
    return (
        _single(
            refund.id,
            ("late", *_again(refund.tries, "late")),
            "refund.late",
            account_of(PLATFORM, "loss"),
            source_account(payment, account_of),
            refund.amount.amount_minor,
        ),
    )


def abandon_chain(payment: Payment, refund: Refund) -> Chain:
    """It is not known whether a hold stands, and none may: every hold id is voided.

    A void of an id that never came leaves a tombstone, so that a hold still on its way is refused.
    """
    return tuple(
        Posting(
            derive("tfr", refund.id, step.replace("hold", "abandon"), source, refund.attempt),
            "VOID",
            movement.replace("hold", "void"),
            refund.id,
            pending_id=hold_id(refund, step, source),
        )
        for source in hold_sources(payment)
        for step, movement, amount in _hold_steps(refund)
        if amount > 0
    )


def _resolve_chain(refund: Refund, kind: str, verb: str) -> Chain:
    again = _again(refund.tries, verb)
    chain = []
    for step, movement, amount in _hold_steps(refund):
        if amount > 0:
            chain.append(
                Posting(
                    derive("tfr", refund.id, step.replace("hold", verb), *again),
                    kind,
                    movement.replace("hold", verb),
                    refund.id,
                    pending_id=hold_id(refund, step, refund.source_kind),
                )
            )
    return tuple(chain)
