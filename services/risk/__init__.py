"""Pass or block, and why.

Owns the rules (versions, from a file), a decision row for every verdict, and the counters behind
the limits, which live in Redis and gate. Invariants: one action has one verdict for ever; what
passing actions use of a limit never exceeds it, however many are assessed at once; what did not
happen is given back, what happened counts, also when it was confirmed too late. Addresses and
devices are kept as keyed hashes only. Called by payment; hears payments' ends; calls nobody.
"""
