"""The platform in one process on a virtual clock, under every trouble that a seed can think of.

Real are the services: servicers, flows, writers, stores, jobs, relays, inboxes and middleware,
wired by their own `wiring.py`. Simulated is what surrounds them: time and the order of things
(loop.py), calls between processes (network.py), the broker (broker.py), the banks (bank.py), the
processes, which are killed at any await (process.py), and on the model stores the database too.
Customers buy, pay twice, close and ask their money back (shop.py); after each step and at the end
the books must be right (invariants.py).

`python -m tests.simulation --seeds 1..1000` runs seeds; `--trace` tells what happens in one.
"""
