"""Which channel, and why.

Owns the rules of how channels carry products: append-only versions, the last one in force. A choice
is made in memory from the rules alone, without a database, and is the same for the same payment
under the same version; it names a reason for every channel, taken or not. Called by payment
(choices) and operators (rules); calls nobody.
"""
