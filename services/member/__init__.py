"""Who is this: merchants and their keys, users, bound bank cards.

Owns the registration of parties; their accounts are the ledger's, under ids derived from the
party's. Invariants: a party is ACTIVE only when all its accounts are open; a key that was revoked
never signs again; nothing of a card but its last four digits can be read by anyone but `channel`,
and its number is nowhere in the clear. Operators register merchants and keys, merchants (through
the edge) their users and cards, every service may read.
"""
