"""What the account service keeps in PostgreSQL.

`lane` is the posting path: lock, decide elsewhere, write, in batches. `accounts`, `reading` and
`days` are the quiet rest. `partitions` makes the months that transfers fall into.
"""
