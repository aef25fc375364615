"""How an order is paid, and did it work.

Owns payment instructions and instructions to give money back: products plan them, the engine runs
them, the janitor finds out what became of them. Invariants: the intent is stored before anything
is called; money that came in is either claimed for its order or on its way back; refunds never
exceed what was captured; a step repeated after a crash carries the same ids; what no flow decides
is an exception with a default action and a deadline. Called by edge (for
merchants) and trade; calls trade, routing, risk, channel and account. What is booked when is fixed
in docs/money-flows.md.
"""
