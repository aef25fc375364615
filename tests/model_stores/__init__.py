"""A model of what the services keep in PostgreSQL, in memory, for simulations.

What is modelled is the lowest seam there is: **one named statement** of a `queries.sql`. So the
stores, lanes, flows, jobs, inboxes and outboxes that run on the model are the platform's own, line
by line, and only the rows and the statements over them are stood in for:

    database = ModelDatabase(clock, step)      # its rows outlive whatever crashes
    pool = database.pool("trade")              # a `common.db.pool.Pool`
    orders = OrderStore(pool, Outbox(), announcements, clock)

`step(statement, moment)` is awaited around each transaction, and nowhere else does the model wait:
`("trade.claim_orders", "before")` when nothing of it was read or written yet, `(…, "after")` when
it is committed and its caller has not heard; a transaction is called by its first statement. There
a simulation delays, reorders, raises (`ConnectionError` is a lost connection) or cancels. Between
the two a transaction runs alone, from its first statement to its commit: what the real one reaches
by row locks. That makes it an error, which the model raises, to wait for anything else meanwhile.

Allowed only because `tests/conformance/stores` runs the same cases on this model and on PostgreSQL.

Not modelled: locks and waiting for them (transactions run one after the other), isolation below
serialisable, partitions by month or day, timeouts, limits of types, and the statements that
each `StatementBook` names with the reason.
"""
