"""What did the bank say.

Owns which channels there are and how each is reached, every charge and refund that was asked of
them, and every callback that they sent. Invariants: the intent is stored before the channel is
called, and no transaction is open while it is; one reference is executed at most once; money that
a channel has taken is never taken back by a later word; nothing that a channel says changes a row
before it was verified and its amount, currency and reference compared; a callback that denies what
was asked for has effect only when the channel, asked by us, says the same. Called by payment
(verbs, questioned callbacks), edge (callbacks) and operators; calls member for card numbers, which
it never keeps.
"""
