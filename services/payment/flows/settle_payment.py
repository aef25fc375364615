"""Money has come: book it, let the payment claim its order, and bring it where it belongs."""

from __future__ import annotations

from typing import Final

from services.payment.domain.payments import Payment
from services.payment.domain.postings import receive_chain, settle_chain
from services.payment.domain.states import PaymentState
from services.payment.events import payment_succeeded
from services.payment.flows.parts import Parts, call_of
from services.payment.flows.return_payment import give_back
from services.payment.flows.save_payment import book, path_from, save
from services.payment.peers import AccountNames
from services.payment.store.rows import Change

# It is known where the money goes, and whose it is.
_MONEY_PLACED: Final = frozenset(
    {
        PaymentState.SUCCEEDED,
        PaymentState.CONFLICTED,
        PaymentState.RETURNING,
        PaymentState.RETURNED,
        PaymentState.UNCLAIMED,
    }
)

# Somebody who changes a payment that often while its money is booked is a bug, not a race.
_ROUNDS_MAX: Final = 8


async def settle(parts: Parts, payment: Payment, *, received: bool = False) -> Payment:
    """Bring received money to its end; safe to repeat from any point, with the same ids.

    Whoever changed the payment meanwhile did not know of the money: it is gone on with from what
    stands now, so that a late success is not lost to an earlier failure. `received` says that the
    money is in transit already. Raises PaymeshError when a peer cannot be reached: the payment
    stays as it was, and the janitor comes back to it.
    """
    for _ in range(_ROUNDS_MAX):
        payment = await _settle_once(parts, payment, received)
        if payment.state in _MONEY_PLACED:
            break
        received = True
    return payment


async def _settle_once(parts: Parts, payment: Payment, received: bool) -> Payment:
    if payment.state in _MONEY_PLACED and payment.state is not PaymentState.RETURNING:
        return payment
    if payment.state is not PaymentState.RETURNING:
        if not received:
            await parts.peers.open_platform_accounts(payment)
            chain = receive_chain(payment, AccountNames(payment))
            await book(parts, chain, payment.amount.currency_code, "receive")
        if await parts.peers.claim_order(payment):
            return await _book(parts, payment)
    return await give_back(parts, payment)


async def _book(parts: Parts, payment: Payment) -> Payment:
    """The claim is won: transit → merchant and fee, or → user."""
    chain = settle_chain(payment, AccountNames(payment))
    booked = await book(parts, chain, payment.amount.currency_code, "settle")
    path = path_from(payment, PaymentState.SUCCEEDED)
    after = payment.moved(*path, business_date=booked.business_date, next_action=None, failure=None)
    now = parts.clock.now()
    call = call_of(payment)
    change = Change(
        payment, after, path, "order claimed", call, now, (payment_succeeded(after, call, now),)
    )
    return await save(parts, change)
