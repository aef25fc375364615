-- The proof: the outer accounts add up to the general ledger. All statements of one proof run in
-- one snapshot. Amounts are debits less credits.

-- name: sum_books
-- What the accounts have posted and buffered and what the general ledger says without closings, by
-- world, currency and subject. An account of a kind without a subject shows under an empty one.
WITH terms AS (
    SELECT tenant_id, mode, currency_code, kind,
           sum(debits_posted_minor) - sum(credits_posted_minor) AS outer_minor,
           0::numeric AS buffered_minor
    FROM accounts
    GROUP BY tenant_id, mode, currency_code, kind
    UNION ALL
    SELECT a.tenant_id, a.mode, a.currency_code, a.kind, 0, -sum(b.amount_minor)
    FROM buffered_credits b
    JOIN accounts a ON a.book = b.book AND a.id = b.account_id
    GROUP BY a.tenant_id, a.mode, a.currency_code, a.kind
), sums AS (
    SELECT t.tenant_id, t.mode, t.currency_code, coalesce(k.subject_code, '') AS subject_code,
           t.outer_minor, t.buffered_minor, 0::numeric AS inner_minor
    FROM terms t
    LEFT JOIN subject_kinds k ON k.kind = t.kind
    UNION ALL
    SELECT tenant_id, mode, currency_code, subject_code, 0, 0,
           sum(debits_minor) - sum(credits_minor)
    FROM subject_balances
    WHERE subject_code IN (SELECT subject_code FROM subject_kinds)
    GROUP BY tenant_id, mode, currency_code, subject_code
)
SELECT s.tenant_id, s.mode, s.currency_code, s.subject_code, coalesce(c.normal_side, 'DEBIT'),
       sum(s.outer_minor), sum(s.buffered_minor), sum(s.inner_minor)
FROM sums s
LEFT JOIN subjects c ON c.code = s.subject_code
GROUP BY s.tenant_id, s.mode, s.currency_code, s.subject_code, c.normal_side;

-- name: sum_in_flight
-- What transfers moved that have no voucher yet, by world, currency and subject.
WITH flying AS MATERIALIZED (
    SELECT t.book, t.debit_account_id, t.credited_id, t.booked_minor
    FROM business_dates d
    LEFT JOIN voucher_cursors c ON c.book = d.book
    CROSS JOIN LATERAL (
        SELECT t.book, t.debit_account_id, t.booked_minor,
               coalesce(t.redirected_to, t.credit_account_id) AS credited_id
        FROM transfers t
        WHERE t.book = d.book AND t.written_in > coalesce(c.written_in, '0'::xid8)
          AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
        OFFSET 0  -- behind each cursor; joined the other way round, all transfers would be read
    ) t
), sides AS (
    SELECT book, debit_account_id AS account_id, sum(booked_minor) AS amount
    FROM flying GROUP BY book, debit_account_id
    UNION ALL
    SELECT book, credited_id, -sum(booked_minor) FROM flying GROUP BY book, credited_id
)
SELECT a.tenant_id, a.mode, a.currency_code, coalesce(k.subject_code, '') AS subject_code,
       sum(s.amount) AS amount
FROM sides s
JOIN accounts a ON a.book = s.book AND a.id = s.account_id
LEFT JOIN subject_kinds k ON k.kind = a.kind
GROUP BY a.tenant_id, a.mode, a.currency_code, k.subject_code;

-- name: list_in_flight
-- Transfers that have no voucher yet: how many, and the ids of the oldest.
WITH flying AS MATERIALIZED (
    SELECT t.id
    FROM business_dates d
    LEFT JOIN voucher_cursors c ON c.book = d.book
    CROSS JOIN LATERAL (
        SELECT t.id
        FROM transfers t
        WHERE t.book = d.book AND t.written_in > coalesce(c.written_in, '0'::xid8)
          AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
        OFFSET 0  -- behind each cursor; joined the other way round, all transfers would be read
    ) t
)
SELECT (SELECT count(*) FROM flying) AS count,
       ARRAY(SELECT id FROM flying ORDER BY id LIMIT $1) AS ids;

-- name: compare_days
-- Subjects whose sums of a day differ: what transfers moved, entries say (also account by account, or
-- what moved between two of one subject would go unnoticed), vouchers tell, and the day's sums keep.
-- Of cut days ($1 books, $2 dates, whose transfers were written in transactions from $3 to before
-- $4) all is found by key, so it costs what the days hold; the entries are those of their transfers.
-- Without them ($1 is null) of all days, with all entries. The plan is made for the one or the other.
WITH moved AS MATERIALIZED (
    SELECT t.book, t.business_date, t.id, t.booked_at, t.debit_account_id, t.booked_minor,
           t.debit_version, t.credit_version, t.is_buffered,
           coalesce(t.redirected_to, t.credit_account_id) AS credited_id,
           CASE WHEN t.written_in <= coalesce(c.written_in, '0'::xid8) THEN t.booked_minor ELSE 0 END
               AS due_minor
    FROM transfers t
    LEFT JOIN voucher_cursors c ON c.book = t.book
    WHERE t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
      AND ($1::smallint[] IS NULL OR (
          t.book = ANY($1) AND t.written_in >= $3::xid8 AND t.written_in < $4::xid8
          AND t.business_date = ANY($2::date[])))
), entered AS (
    SELECT book, business_date, account_id, is_debit, amount_minor
    FROM entries
    WHERE $1 IS NULL
    UNION ALL
    SELECT book, business_date, account_id, false, amount_minor
    FROM buffered_credits
    WHERE $1 IS NULL
    UNION ALL
    SELECT m.book, e.business_date, e.account_id, e.is_debit, e.amount_minor
    FROM moved m
    JOIN entries e ON e.book = m.book AND e.account_id = m.debit_account_id
                  AND e.version = m.debit_version AND e.transfer_id = m.id
    WHERE $1 IS NOT NULL
    UNION ALL
    SELECT m.book, e.business_date, e.account_id, e.is_debit, e.amount_minor
    FROM moved m
    JOIN entries e ON e.book = m.book AND e.account_id = m.credited_id
                  AND e.version = m.credit_version AND e.transfer_id = m.id
    WHERE $1 IS NOT NULL AND NOT m.is_buffered
    UNION ALL
    SELECT m.book, e.business_date, e.account_id, e.is_debit, e.amount_minor
    FROM moved m
    JOIN entries e ON e.book = m.book AND e.account_id = m.credited_id
                  AND e.appended_at = m.booked_at AND e.transfer_id = m.id
    WHERE $1 IS NOT NULL AND m.is_buffered
    UNION ALL
    SELECT m.book, b.business_date, b.account_id, false, b.amount_minor
    FROM moved m
    JOIN buffered_credits b ON b.book = m.book AND b.account_id = m.credited_id
                           AND b.transfer_id = m.id
    WHERE $1 IS NOT NULL AND m.is_buffered
), amounts AS (
    SELECT book, business_date, debit_account_id AS account_id, booked_minor AS moved,
           due_minor AS due, 0 AS entered
    FROM moved
    UNION ALL
    SELECT book, business_date, credited_id, -booked_minor, -due_minor, 0 FROM moved
    UNION ALL
    SELECT book, business_date, account_id, 0, 0,
           CASE WHEN is_debit THEN amount_minor ELSE -amount_minor END
    FROM entered
), outer_sums AS (
    SELECT m.book, m.business_date, a.tenant_id, a.mode, a.currency_code,
           coalesce(k.subject_code, '') AS subject_code,
           sum(m.moved) AS moved, sum(m.entered) AS entered, sum(m.due) AS due,
           count(*) FILTER (WHERE m.moved <> m.entered) AS accounts_off
    FROM (
        SELECT book, business_date, account_id, sum(moved) AS moved, sum(entered) AS entered,
               sum(due) AS due
        FROM amounts
        GROUP BY book, business_date, account_id
    ) m
    LEFT JOIN accounts a ON a.book = m.book AND a.id = m.account_id
    LEFT JOIN subject_kinds k ON k.kind = a.kind
    GROUP BY m.book, m.business_date, a.tenant_id, a.mode, a.currency_code, k.subject_code
), told AS (
    SELECT l.book, l.business_date, l.tenant_id, l.mode, v.currency_code, l.subject_code,
           sum(CASE WHEN l.is_debit THEN l.amount_minor ELSE -l.amount_minor END) AS told
    FROM all_voucher_lines l
    JOIN all_vouchers v ON v.book = l.book AND v.business_date = l.business_date
                       AND v.tenant_id = l.tenant_id AND v.mode = l.mode AND v.number = l.number
    WHERE v.source <> 'CLOSING'
      AND ($1 IS NULL OR (v.book = ANY($1) AND v.business_date = ANY($2)))
    GROUP BY l.book, l.business_date, l.tenant_id, l.mode, v.currency_code, l.subject_code
), all_sums AS (
    SELECT book, business_date, tenant_id, mode, currency_code, subject_code,
           moved, entered, due, accounts_off, 0::numeric AS told, 0::numeric AS kept
    FROM outer_sums
    UNION ALL
    SELECT book, business_date, tenant_id, mode, currency_code, subject_code, 0, 0, 0, 0, told, 0
    FROM told
    UNION ALL
    SELECT b.book, b.business_date, b.tenant_id, b.mode, b.currency_code, b.subject_code, 0, 0, 0, 0,
           0, b.debits_minor - b.credits_minor
    FROM subject_balances b
    WHERE $1 IS NULL OR (b.book = ANY($1) AND b.business_date = ANY($2))
)
SELECT s.book, s.business_date, coalesce(s.tenant_id, '') AS tenant_id,
       coalesce(s.mode, '') AS mode, coalesce(s.currency_code, '') AS currency_code,
       s.subject_code, bool_or(k.subject_code IS NOT NULL OR s.subject_code = '') AS is_controlled,
       sum(s.moved) AS moved, sum(s.entered) AS entered, sum(s.due) AS due, sum(s.told) AS told,
       sum(s.kept) AS kept
FROM all_sums s
LEFT JOIN (SELECT DISTINCT subject_code FROM subject_kinds) k ON k.subject_code = s.subject_code
WHERE $1 IS NULL
   OR (s.book, s.business_date) IN (SELECT w.book, w.on_day FROM unnest($1, $2) AS w (book, on_day))
GROUP BY s.book, s.business_date, s.tenant_id, s.mode, s.currency_code, s.subject_code
HAVING sum(s.told) <> sum(s.kept)
    OR (bool_or(k.subject_code IS NOT NULL OR s.subject_code = '')
        AND (sum(s.accounts_off) > 0 OR sum(s.moved) <> sum(s.entered)
             OR sum(s.due) <> sum(s.told)))
ORDER BY s.business_date, s.book, s.tenant_id, s.mode, s.currency_code, s.subject_code
LIMIT $5;

-- name: find_misfit
-- The first transfer of a day that does not fit on one subject: its two sides against its entries
-- and against what its vouchers tell. A reversal belongs to the transfer of what it took back.
WITH here AS MATERIALIZED (
    SELECT a.id
    FROM accounts a
    LEFT JOIN subject_kinds k ON k.kind = a.kind
    WHERE a.book = $1 AND a.tenant_id = $3 AND a.mode = $4 AND a.currency_code = $5
      AND coalesce(k.subject_code, '') = $6
), moved AS MATERIALIZED (
    SELECT t.id AS transfer_id, coalesce(d.id, c.id) AS account_id,
           t.written_in <= coalesce(v.written_in, '0'::xid8) AS is_due,
           CASE WHEN d.id IS NULL THEN 0 ELSE t.booked_minor END
               - CASE WHEN c.id IS NULL THEN 0 ELSE t.booked_minor END AS amount
    FROM transfers t
    LEFT JOIN voucher_cursors v ON v.book = t.book
    LEFT JOIN here d ON d.id = t.debit_account_id
    LEFT JOIN here c ON c.id = coalesce(t.redirected_to, t.credit_account_id)
    WHERE t.book = $1 AND t.business_date = $2 AND t.status = 'BOOKED'
      AND t.kind IN ('SINGLE', 'POST') AND (d.id IS NOT NULL OR c.id IS NOT NULL)
), entered AS MATERIALIZED (
    SELECT e.transfer_id, min(e.account_id) AS account_id, sum(e.amount) AS amount
    FROM (
        SELECT transfer_id, account_id,
               CASE WHEN is_debit THEN amount_minor ELSE -amount_minor END AS amount
        FROM entries
        WHERE book = $1 AND business_date = $2
        UNION ALL
        SELECT transfer_id, account_id, -amount_minor
        FROM buffered_credits
        WHERE book = $1 AND business_date = $2
    ) e
    JOIN here h ON h.id = e.account_id
    GROUP BY e.transfer_id
), told AS MATERIALIZED (
    SELECT o.origin, min(o.id) AS voucher_id,
           sum(CASE WHEN l.is_debit THEN l.amount_minor ELSE -l.amount_minor END) AS amount
    FROM (
        SELECT v.book, v.business_date, v.tenant_id, v.mode, v.number, v.id,
               CASE v.source WHEN 'JOURNAL' THEN v.source_id
                             WHEN 'REVERSAL' THEN coalesce(w.source_id, v.id)
                             ELSE v.id END AS origin
        FROM all_vouchers v
        LEFT JOIN voucher_reversals r ON v.source = 'REVERSAL' AND r.book = v.book
                                     AND r.reversal_id = v.id
        LEFT JOIN all_vouchers w ON w.book = r.book AND w.id = r.voucher_id
        WHERE v.book = $1 AND v.business_date = $2 AND v.tenant_id = $3 AND v.mode = $4
          AND v.currency_code = $5 AND v.source <> 'CLOSING'
    ) o
    JOIN all_voucher_lines l
      ON l.book = o.book AND l.business_date = o.business_date AND l.tenant_id = o.tenant_id
     AND l.mode = o.mode AND l.number = o.number AND l.subject_code = $6
    GROUP BY o.origin
)
SELECT coalesce(m.transfer_id, e.transfer_id, t.origin) AS transfer_id,
       coalesce(e.account_id, m.account_id, '') AS account_id,
       coalesce(t.voucher_id, (
           SELECT v.id
           FROM all_vouchers v
           WHERE v.book = $1 AND v.business_date = $2 AND v.source = 'JOURNAL'
             AND v.source_id = coalesce(m.transfer_id, e.transfer_id)
           LIMIT 1
       ), '') AS voucher_id,
       m.transfer_id IS NOT NULL AS has_transfer, e.transfer_id IS NOT NULL AS has_entry,
       coalesce(m.is_due, false) AS is_due, coalesce(m.amount, 0) AS moved,
       coalesce(e.amount, 0) AS entered, coalesce(t.amount, 0) AS told
FROM moved m
FULL JOIN entered e ON e.transfer_id = m.transfer_id
FULL JOIN told t ON t.origin = coalesce(m.transfer_id, e.transfer_id)
WHERE coalesce(m.amount, 0) <> coalesce(e.amount, 0)
   OR CASE WHEN m.is_due THEN m.amount ELSE 0 END <> coalesce(t.amount, 0)
ORDER BY 1
LIMIT 1;

-- name: find_misfit_of_account
-- The first side of a transfer of a day that does not fit on one subject: what the transfer moved on
-- an account against its entries there, and entries on other accounts or of no transfer.
WITH here AS MATERIALIZED (
    SELECT a.id
    FROM accounts a
    LEFT JOIN subject_kinds k ON k.kind = a.kind
    WHERE a.book = $1 AND a.tenant_id = $3 AND a.mode = $4 AND a.currency_code = $5
      AND coalesce(k.subject_code, '') = $6
), booked AS MATERIALIZED (
    SELECT id, debit_account_id, coalesce(redirected_to, credit_account_id) AS credited_id,
           booked_minor
    FROM transfers
    WHERE book = $1 AND business_date = $2 AND status = 'BOOKED' AND kind IN ('SINGLE', 'POST')
), sides AS (
    SELECT id AS transfer_id, debit_account_id AS account_id, booked_minor AS moved,
           0::bigint AS entered, true AS is_booked
    FROM booked
    UNION ALL
    SELECT id, credited_id, -booked_minor, 0, true FROM booked
    UNION ALL
    SELECT transfer_id, account_id, 0, CASE WHEN is_debit THEN amount_minor ELSE -amount_minor END,
           false
    FROM entries
    WHERE book = $1 AND business_date = $2
    UNION ALL
    SELECT transfer_id, account_id, 0, -amount_minor, false
    FROM buffered_credits
    WHERE book = $1 AND business_date = $2
)
SELECT s.transfer_id, s.account_id, s.transfer_id IN (SELECT id FROM booked) AS has_transfer,
       NOT bool_and(s.is_booked) AS has_entry, sum(s.moved) AS moved, sum(s.entered) AS entered
FROM sides s
JOIN here h ON h.id = s.account_id
GROUP BY s.transfer_id, s.account_id
HAVING sum(s.moved) <> sum(s.entered)
ORDER BY s.transfer_id, s.account_id
LIMIT 1;

-- name: find_unbalanced_voucher
-- The first voucher of a day whose lines do not add up to its total on both sides.
SELECT v.id
FROM all_vouchers v
LEFT JOIN all_voucher_lines l
  ON l.book = v.book AND l.business_date = v.business_date AND l.tenant_id = v.tenant_id
 AND l.mode = v.mode AND l.number = v.number
WHERE v.book = $1 AND v.business_date = $2 AND v.tenant_id = $3 AND v.mode = $4
  AND v.currency_code = $5
GROUP BY v.number, v.id, v.total_minor
HAVING coalesce(sum(l.amount_minor) FILTER (WHERE l.is_debit), 0) <> v.total_minor
    OR coalesce(sum(l.amount_minor) FILTER (WHERE NOT l.is_debit), 0) <> v.total_minor
ORDER BY v.number
LIMIT 1;

-- name: find_unfit_account
-- The first account under a subject whose posted sums are not the sums of its entries.
SELECT a.book, a.id, a.debits_posted_minor, a.credits_posted_minor,
       coalesce(e.debits, 0) AS entry_debits, coalesce(e.credits, 0) AS entry_credits
FROM accounts a
LEFT JOIN subject_kinds k ON k.kind = a.kind
LEFT JOIN (
    SELECT book, account_id,
           sum(amount_minor) FILTER (WHERE is_debit) AS debits,
           sum(amount_minor) FILTER (WHERE NOT is_debit) AS credits
    FROM entries
    GROUP BY book, account_id
) e ON e.book = a.book AND e.account_id = a.id
WHERE a.tenant_id = $1 AND a.mode = $2 AND a.currency_code = $3
  AND coalesce(k.subject_code, '') = $4
  AND (a.debits_posted_minor <> coalesce(e.debits, 0)
       OR a.credits_posted_minor <> coalesce(e.credits, 0))
ORDER BY a.book, a.id
LIMIT 1;

-- name: find_unfit_entry
-- The first entry of an account that carries other sums than the entries up to it add up to; the
-- last entry when all of them fit.
SELECT transfer_id
FROM (
    SELECT transfer_id, version,
           debits_posted_minor <> coalesce(sum(amount_minor) FILTER (WHERE is_debit)
               OVER so_far, 0)
           OR credits_posted_minor <> coalesce(sum(amount_minor) FILTER (WHERE NOT is_debit)
               OVER so_far, 0) AS is_unfit
    FROM entries
    WHERE book = $1 AND account_id = $2
    WINDOW so_far AS (ORDER BY version, transfer_id)
) e
ORDER BY is_unfit DESC, CASE WHEN is_unfit THEN version ELSE -version END
LIMIT 1;

-- name: read_mark
-- What moves when the books move: the last transfer of each book, how far vouchers are made, and
-- how many credits wait in buffers.
SELECT d.book, t.written_in AS last_written, least(c.written_in, t.written_in) AS last_told,
       (SELECT count(*) FROM buffered_credits b WHERE b.book = d.book) AS buffered
FROM business_dates d
LEFT JOIN voucher_cursors c ON c.book = d.book
LEFT JOIN LATERAL (
    SELECT t.written_in FROM transfers t WHERE t.book = d.book ORDER BY t.written_in DESC LIMIT 1
) t ON true
ORDER BY d.book;

-- name: read_moment
-- The clock and the furthest business date. Proofs keep their order also when the clock goes back.
SELECT greatest(
           clock_timestamp(), (SELECT max(proved_at) + interval '1 microsecond' FROM proofs)
       ) AS now,
       max(business_date) AS business_date
FROM business_dates;

-- name: insert_proof
-- A proof that was made.
INSERT INTO proofs (
    id, proved_at, business_date, holds, in_flight_count, occasion, in_flight_ids, lines, unfit
)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: prune_proofs
-- Continuous proofs behind the last one go at once when they held, later when they did not; a
-- day's proofs that are not its last likewise.
DELETE FROM proofs p
WHERE p.proved_at < $1
  AND (p.holds OR p.proved_at < $1 - make_interval(days => 30))
  AND CASE p.occasion
      WHEN 'DAY_CUT' THEN EXISTS (
          SELECT FROM proofs q
          WHERE q.occasion = 'DAY_CUT' AND q.business_date = p.business_date
            AND q.proved_at > p.proved_at)
      ELSE true END;

-- name: read_last_proof
-- The last proof.
SELECT id, proved_at, occasion, business_date, lines, in_flight_count, in_flight_ids, unfit, holds
FROM proofs
ORDER BY proved_at DESC, id DESC
LIMIT 1;

-- name: read_proofs_of_days
-- The last proof of each of some days.
SELECT DISTINCT ON (business_date)
       id, proved_at, occasion, business_date, lines, in_flight_count, in_flight_ids, unfit, holds
FROM proofs
WHERE occasion = 'DAY_CUT' AND business_date = ANY($1::date[])
ORDER BY business_date, proved_at DESC, id DESC;
