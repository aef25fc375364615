"""What the channel service keeps in PostgreSQL.

`movements` holds charges, refunds and callbacks; `channels` which channels there are.
"""
