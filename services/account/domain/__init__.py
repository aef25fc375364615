"""The rules of the ledger, pure: no clock, no database, no wire.

`accounts` and `kinds` say what an account is, `transfers` what may be asked and what comes back,
`requests` which requests are invalid whatever the books hold, `statuses` what a frozen account
takes, `bookings` what one transfer changes, `decisions` what becomes of a batch.
"""
