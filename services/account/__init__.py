"""Whose money is where: accounts, transfers, holds, entries, and the business date.

Owns the outer books. Others call it through its contract only; `payment`, `trade`, `settlement`
and `channel` book, operators freeze and read.

What always holds, whichever process is killed when:
- per book, world and currency, debits and credits are equal, those that wait in buffers included;
- an account's posted sums are the sums of its entries, its pending sums those of its open holds;
- what waits in a buffer belongs to its account, can be neither debited nor held, and is posted by
  the next drain, or before the account is frozen, closed, limited or no longer buffered;
- under one transfer id there is one answer, for ever; a chain is booked all or none;
- an account that may not go negative has an available amount of zero or more, within its limit,
  unless a forced correction took it below.

Correctness rests on the row locks of PostgreSQL (`store/lane.py`) and a pure decision over what
was locked (`domain/decisions.py`); the coalescer in front only makes it fast.
"""
