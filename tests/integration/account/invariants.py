"""What has to hold in every snapshot of the outer books, asked of the rows themselves.

Shares no statement with the service. Each query returns what is wrong, and a word for it.
"""

from __future__ import annotations

from typing import Final

from common.db.pool import Pool

_QUERIES: Final = {
    "debits and credits differ": """
        WITH waiting AS (
            SELECT book, account_id, sum(amount_minor) AS amount
            FROM buffered_credits GROUP BY book, account_id
        )
        SELECT tenant_id, mode, currency_code,
               sum(debits_posted_minor) - sum(credits_posted_minor) - sum(coalesce(w.amount, 0)),
               sum(debits_pending_minor) - sum(credits_pending_minor)
        FROM accounts a LEFT JOIN waiting w ON (w.book, w.account_id) = (a.book, a.id)
        GROUP BY tenant_id, mode, currency_code
        HAVING sum(debits_posted_minor)
               <> sum(credits_posted_minor) + sum(coalesce(w.amount, 0))
            OR sum(debits_pending_minor) <> sum(credits_pending_minor)
    """,
    "an account is not the sum of its lines": """
        SELECT a.id, a.debits_posted_minor, a.credits_posted_minor, e.debits, e.credits
        FROM accounts a LEFT JOIN (
            SELECT book, account_id,
                   sum(CASE WHEN is_debit THEN amount_minor ELSE 0 END) AS debits,
                   sum(CASE WHEN is_debit THEN 0 ELSE amount_minor END) AS credits
            FROM entries GROUP BY book, account_id
        ) e ON (e.book, e.account_id) = (a.book, a.id)
        WHERE (a.debits_posted_minor, a.credits_posted_minor)
              IS DISTINCT FROM (coalesce(e.debits, 0), coalesce(e.credits, 0))
    """,
    "a line does not follow from the one before": """
        SELECT * FROM (
            SELECT account_id, version, transfer_id,
                   debits_posted_minor - CASE WHEN is_debit THEN amount_minor ELSE 0 END
                   - coalesce(lag(debits_posted_minor) OVER w, 0) AS debits_off,
                   credits_posted_minor - CASE WHEN is_debit THEN 0 ELSE amount_minor END
                   - coalesce(lag(credits_posted_minor) OVER w, 0) AS credits_off,
                   version - coalesce(lag(version) OVER w, 1) AS step,
                   booked_at >= coalesce(lag(booked_at) OVER w, booked_at) AS in_time
            FROM entries
            WINDOW w AS (PARTITION BY book, account_id ORDER BY version)
        ) AS line
        WHERE debits_off <> 0 OR credits_off <> 0 OR step < 1 OR NOT in_time
    """,
    # A cut drains all buffers first, so days follow each other along every account.
    "a line's day is before the one before": """
        SELECT * FROM (
            SELECT account_id, version, business_date,
                   lag(business_date) OVER w AS before
            FROM entries
            WINDOW w AS (PARTITION BY book, account_id ORDER BY version)
        ) AS line
        WHERE business_date < before
    """,
    # By its transaction each day ends before the next begins: so vouchers know it complete.
    "days overlap": """
        SELECT * FROM (
            SELECT book, business_date, first,
                   lag(last) OVER (PARTITION BY book ORDER BY business_date) AS last_before
            FROM (
                SELECT book, business_date, min(written_in::text::bigint) AS first,
                       max(written_in::text::bigint) AS last
                FROM transfers GROUP BY book, business_date
            ) AS day
        ) AS days
        WHERE first <= last_before
    """,
    "a line is newer than its account": """
        SELECT e.account_id, e.version, a.version
        FROM entries e JOIN accounts a ON (a.book, a.id) = (e.book, e.account_id)
        WHERE e.version > a.version
    """,
    "what is frozen is not what open holds keep": """
        SELECT a.id, a.debits_pending_minor, a.credits_pending_minor, d.held, c.held
        FROM accounts a
        LEFT JOIN (
            SELECT book, debit_account_id AS id, sum(held_minor) AS held
            FROM holds GROUP BY book, debit_account_id
        ) d ON (d.book, d.id) = (a.book, a.id)
        LEFT JOIN (
            SELECT book, credit_account_id AS id, sum(held_minor) AS held
            FROM holds GROUP BY book, credit_account_id
        ) c ON (c.book, c.id) = (a.book, a.id)
        WHERE a.debits_pending_minor <> coalesce(d.held, 0)
           OR a.credits_pending_minor <> coalesce(c.held, 0)
    """,
    "a movement has not its two lines": """
        SELECT t.id, t.kind, t.booked_minor, count(l.transfer_id), sum(l.amount)
        FROM transfers t LEFT JOIN (
            SELECT book, transfer_id, CASE WHEN is_debit THEN -1 ELSE 1 END * amount_minor AS amount
            FROM entries
            UNION ALL
            SELECT book, transfer_id, amount_minor FROM buffered_credits
        ) l ON (l.book, l.transfer_id) = (t.book, t.id)
        GROUP BY t.book, t.id, t.kind, t.status, t.booked_minor
        HAVING count(l.transfer_id)
               <> CASE WHEN t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST') THEN 2 ELSE 0 END
            OR coalesce(sum(l.amount), 0) <> 0
            OR coalesce(max(l.amount), t.booked_minor) <> t.booked_minor
    """,
    "a hold is open and ended": """
        SELECT h.id, r.fate FROM holds h
        JOIN resolutions r ON (r.book, r.pending_id) = (h.book, h.id)
    """,
    "a hold is neither open nor ended": """
        SELECT t.id FROM transfers t
        WHERE t.kind = 'PENDING' AND t.status = 'BOOKED'
          AND NOT EXISTS (SELECT FROM holds h WHERE (h.book, h.id) = (t.book, t.id))
          AND NOT EXISTS (SELECT FROM resolutions r WHERE (r.book, r.pending_id) = (t.book, t.id))
    """,
    "a hold's parts are not what was held": """
        SELECT t.id, t.booked_minor, h.held_minor, s.posted, s.given_back
        FROM transfers t
        LEFT JOIN holds h ON (h.book, h.id) = (t.book, t.id)
        LEFT JOIN resolutions r ON (r.book, r.pending_id) = (t.book, t.id)
        LEFT JOIN (
            SELECT book, pending_id,
                   sum(CASE WHEN kind = 'POST' THEN booked_minor ELSE 0 END) AS posted,
                   sum(CASE WHEN kind <> 'POST' THEN booked_minor ELSE 0 END) AS given_back
            FROM transfers WHERE status = 'BOOKED' AND pending_id <> ''
            GROUP BY book, pending_id
        ) s ON (s.book, s.pending_id) = (t.book, t.id)
        WHERE t.kind = 'PENDING' AND t.status = 'BOOKED'
          AND (coalesce(h.posted_minor, r.posted_minor) <> coalesce(s.posted, 0)
               OR coalesce(s.posted, 0) + coalesce(s.given_back, 0) + coalesce(h.held_minor, 0)
                  > t.booked_minor
               OR r.fate IN ('POSTED', 'VOIDED', 'EXPIRED')
                  AND coalesce(s.posted, 0) + coalesce(s.given_back, 0) <> t.booked_minor)
    """,
    # Chains whose length stands in their reference; a void's mark has its reference too.
    "a chain is there in part": """
        SELECT reference_id, count(*), min(status), max(status) FROM transfers
        WHERE reference_id LIKE 'chain-%' AND NOT (kind = 'PENDING' AND debit_account_id = '')
        GROUP BY reference_id
        HAVING min(status) <> max(status)
            OR min(status) = 'BOOKED' AND count(*) <> split_part(reference_id, '-', 2)::integer
    """,
}

_BELOW_LIMIT: Final = """
    SELECT id, kind, credit_limit_minor,
           debits_posted_minor, credits_posted_minor, debits_pending_minor, credits_pending_minor
    FROM accounts
    WHERE NOT may_go_negative
      AND CASE WHEN normal_side = 'CREDIT'
               THEN credits_posted_minor - debits_posted_minor - debits_pending_minor
               ELSE debits_posted_minor - credits_posted_minor - credits_pending_minor
          END + credit_limit_minor < 0
"""


async def find_broken(pool: Pool, *, limits_hold: bool = True) -> list[str]:
    """Return what is wrong in one snapshot of all books, in words; nothing when all is well.

    `limits_hold` demands as well that no account is below its limit: so when nothing was forced
    and no limit was lowered.
    """
    queries = dict(_QUERIES)
    if limits_hold:
        queries["an account is below its limit"] = _BELOW_LIMIT
    async with pool.transaction(isolation="repeatable_read", readonly=True) as connection:
        await connection.execute("SET LOCAL enable_nestloop = off")
        return [
            f"{meaning}: {tuple(row)}"
            for meaning, query in queries.items()
            for row in (await connection.fetch(query))[:5]
        ]
