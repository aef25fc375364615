"""The outside parties, played over their real protocols on real sockets.

Owns: what the simulated Alipay and UnionPay did (trades, transactions, refunds), their own ledger
of the money that really moved, and the callbacks that they still owe us. Knows nothing of the
platform's services and imports none: whatever the two sides agree on is the protocol.

Invariants: what was answered is on disk first; a movement is written in the transaction that moved
the money, once, and never changes; a callback is repeated until it is acknowledged, also after a
restart; what goes wrong goes wrong by a plan, and never in the parties' own memory.

Who may call: the `channel` service over HTTP, like any merchant's program; whoever plays the payer
over `/payer/…`; audits over `paymesh.sandbox.v1`.
"""
