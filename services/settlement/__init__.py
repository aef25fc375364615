"""Who gets what: fee plans, and a clearing entry for each movement that concerns a merchant.

Invariants: one entry per payment and per refund, for ever; its net is its gross less its fee, and
equals what the ledger booked; entries are never changed. Recharges concern no merchant and make no
entry. Money is moved by `payment`, never from here.

Called by `trade` for fee plans, by merchants through the edge for totals, by operators. Hears of
payments and refunds by events. Calls nobody.
"""
