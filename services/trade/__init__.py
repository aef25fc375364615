"""Business orders: what was bought, how far it is, and what of it was given back.

Invariants: a merchant's order and refund numbers stand for one thing for ever; an order is won by
at most one payment, the same for every repeat of the question; it is refunded at most in full; its
amount and fee never change after it was made. Money is moved by `payment`, never from here.

Called by the edge for merchants, by `payment` to read and claim orders, by operators for stories
and facts. Calls `payment` (close, refund), `settlement` (fee plans), `account` (business date).
"""
