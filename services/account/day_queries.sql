-- Business days and accounting periods: how far they are, and what closes them.

-- name: list_books
-- Every book with its business date.
SELECT book, business_date FROM business_dates ORDER BY book;

-- name: list_lagging_books
-- Books whose date is behind the furthest: a cut was interrupted between them.
SELECT d.book, f.business_date
FROM business_dates d
CROSS JOIN (SELECT max(business_date) AS business_date FROM business_dates) f
WHERE d.business_date < f.business_date
ORDER BY d.book;

-- name: list_unclosed_days
-- Days that are cut and not closed, oldest first.
SELECT book, business_date, state, begun_in, watermark, cut_at, closed_at
FROM business_days
WHERE state IN ('CUTTING', 'BROKEN')
ORDER BY business_date, book
LIMIT $1;

-- name: list_days_with_vouchers_due
-- Of some days, those that have transfers without a voucher. (The watermark ends the search: what
-- was written after it is of later days.)
SELECT d.book, d.business_date
FROM business_days d
JOIN unnest($1::smallint[], $2::date[]) AS w (book, business_date)
  ON w.book = d.book AND w.business_date = d.business_date
LEFT JOIN voucher_cursors c ON c.book = d.book
WHERE EXISTS (
    SELECT FROM transfers t
    WHERE t.book = d.book AND t.written_in > coalesce(c.written_in, '0'::xid8)
      AND t.written_in < d.watermark AND t.business_date = d.business_date
      AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
    OFFSET 0  -- looked up for each day
);

-- name: move_days
-- Days go from one state to another, each only from where it was; with a line of history each.
WITH moved AS (
    UPDATE business_days d
    SET state = w.to_state,
        closed_at = CASE WHEN w.to_state = 'CLOSED' THEN clock_timestamp() END
    FROM unnest($1::smallint[], $2::date[], $3::text[], $4::text[], $5::text[])
        AS w (book, business_date, from_state, to_state, cause)
    WHERE d.book = w.book AND d.business_date = w.business_date AND d.state = w.from_state
    RETURNING d.book, d.business_date, w.from_state, w.to_state, w.cause
), noted AS (
    INSERT INTO business_day_changes (
        book, business_date, changed_at, from_state, to_state, actor, cause
    )
    SELECT book, business_date, clock_timestamp(), from_state, to_state, $6, cause FROM moved
)
SELECT book, business_date FROM moved;

-- name: count_vouchers
-- How many vouchers days have: numbers have no gaps.
SELECT n.book, n.business_date, sum(n.number_last)::bigint AS vouchers
FROM voucher_numbers n
JOIN unnest($1::smallint[], $2::date[]) AS w (book, business_date)
  ON w.book = n.book AND w.business_date = n.business_date
GROUP BY n.book, n.business_date;

-- name: count_transfers_in_flight
-- Transfers without a voucher yet, by the day that they were booked on.
SELECT d.book, t.business_date, count(*) AS transfers
FROM business_dates d
LEFT JOIN voucher_cursors c ON c.book = d.book
CROSS JOIN LATERAL (
    SELECT t.business_date
    FROM transfers t
    WHERE t.book = d.book AND t.written_in > coalesce(c.written_in, '0'::xid8)
      AND t.status = 'BOOKED' AND t.kind IN ('SINGLE', 'POST')
    OFFSET 0  -- behind each cursor; joined the other way round, all transfers would be read
) t
GROUP BY d.book, t.business_date;

-- name: read_days
-- Some days.
SELECT d.book, d.business_date, d.state, d.begun_in, d.watermark, d.cut_at, d.closed_at
FROM business_days d
JOIN unnest($1::smallint[], $2::date[]) AS w (book, business_date)
  ON w.book = d.book AND w.business_date = d.business_date
ORDER BY d.business_date, d.book;

-- name: list_days
-- A page of days before one, latest first.
SELECT book, business_date, state, begun_in, watermark, cut_at, closed_at
FROM business_days
WHERE (business_date, book) < ($1, $2)
ORDER BY business_date DESC, book DESC
LIMIT $3;

-- name: list_day_changes
-- The history of a day, oldest first.
SELECT changed_at, from_state, to_state, actor, cause
FROM business_day_changes
WHERE book = $1 AND business_date = $2
ORDER BY change;

-- name: lock_period
-- Lets no voucher be written into a month until the transaction ends (see the trigger
-- `vouchers_period_open`), and no other close of it run.
SELECT pg_advisory_xact_lock(1886744431, $1);

-- name: read_period
-- One closed period.
SELECT period, state, closed_at, archived_at FROM periods WHERE period = $1;

-- name: list_days_not_closed_between
-- Days of a period that are not closed.
SELECT book, business_date, state, begun_in, watermark, cut_at, closed_at
FROM business_days
WHERE business_date BETWEEN $1 AND $2 AND state <> 'CLOSED'
ORDER BY business_date, book;

-- name: list_open_months_before
-- Months before a day that have business days and were not closed; and the Decembers of their years,
-- whose close carries profit and loss forward also when dates jumped over the month.
SELECT m.period
FROM (
    SELECT to_char(business_date, 'YYYY-MM') AS period FROM business_days WHERE business_date < $1
    UNION
    SELECT to_char(business_date, 'YYYY-12') FROM business_days
    WHERE business_date < date_trunc('year', $1::date)
) m
WHERE NOT EXISTS (SELECT FROM periods p WHERE p.period = m.period)
ORDER BY m.period;

-- name: list_profit_and_loss
-- What income and expense subjects stand at by a day, as debits less credits; earlier closings
-- counted.
SELECT b.book, b.tenant_id, b.mode, b.currency_code, b.subject_code,
       sum(b.debits_minor + b.closing_debits_minor - b.credits_minor - b.closing_credits_minor)
           AS balance
FROM subject_balances b
JOIN subjects s ON s.code = b.subject_code AND s.class IN ('INCOME', 'EXPENSE')
WHERE b.business_date <= $1
GROUP BY b.book, b.tenant_id, b.mode, b.currency_code, b.subject_code
HAVING sum(b.debits_minor + b.closing_debits_minor - b.credits_minor - b.closing_credits_minor)
    <> 0
ORDER BY b.book, b.tenant_id, b.mode, b.currency_code, b.subject_code;

-- name: list_unbalanced_worlds
-- Worlds whose trial balance does not balance by a day.
SELECT book, tenant_id, mode, currency_code,
       sum(debits_minor + closing_debits_minor - credits_minor - closing_credits_minor)
           AS difference
FROM subject_balances
WHERE business_date <= $1
GROUP BY book, tenant_id, mode, currency_code
HAVING sum(debits_minor + closing_debits_minor) <> sum(credits_minor + closing_credits_minor)
ORDER BY book, tenant_id, mode, currency_code;

-- name: insert_period_balances
-- Where every subject stood before and after a period, on its normal side.
INSERT INTO period_balances (
    period, book, opening_minor, debits_minor, credits_minor, closing_minor, tenant_id, mode,
    subject_code, currency_code
)
SELECT $1, b.book,
       b.side * (b.debits_before - b.credits_before),
       b.debits_within, b.credits_within,
       b.side * (b.debits_before + b.debits_within - b.credits_before - b.credits_within),
       b.tenant_id, b.mode, b.subject_code, b.currency_code
FROM (
    SELECT b.book, b.tenant_id, b.mode, b.subject_code, b.currency_code,
           CASE WHEN s.normal_side = 'DEBIT' THEN 1 ELSE -1 END AS side,
           coalesce(sum(b.debits_minor + b.closing_debits_minor)
               FILTER (WHERE b.business_date < $2), 0) AS debits_before,
           coalesce(sum(b.credits_minor + b.closing_credits_minor)
               FILTER (WHERE b.business_date < $2), 0) AS credits_before,
           coalesce(sum(b.debits_minor + b.closing_debits_minor)
               FILTER (WHERE b.business_date >= $2), 0) AS debits_within,
           coalesce(sum(b.credits_minor + b.closing_credits_minor)
               FILTER (WHERE b.business_date >= $2), 0) AS credits_within
    FROM subject_balances b
    LEFT JOIN subjects s ON s.code = b.subject_code
    WHERE b.business_date <= $3
    GROUP BY b.book, b.tenant_id, b.mode, b.subject_code, b.currency_code, s.normal_side
) b;

-- name: insert_period
-- A period is closed: from the commit on it takes no voucher.
INSERT INTO periods (period, closed_at, state, actor)
VALUES ($1, clock_timestamp(), 'CLOSED', $2)
RETURNING period, state, closed_at, archived_at;

-- name: read_period_balances
-- The balances of one world at the close of a period, over all books.
SELECT tenant_id, mode, subject_code, currency_code, sum(opening_minor) AS opening_minor,
       sum(debits_minor) AS debits_minor, sum(credits_minor) AS credits_minor,
       sum(closing_minor) AS closing_minor
FROM period_balances
WHERE period = $1 AND tenant_id = $2 AND mode = $3
GROUP BY tenant_id, mode, subject_code, currency_code
ORDER BY currency_code, subject_code;

-- name: list_periods
-- A page of months before one that have business days, are the end of a year that has, or were
-- closed; latest first.
SELECT m.period, coalesce(p.state, 'OPEN') AS state, p.closed_at, p.archived_at
FROM (
    SELECT to_char(business_date, 'YYYY-MM') AS period FROM business_days
    UNION
    SELECT to_char(business_date, 'YYYY-12') FROM business_days
    WHERE business_date < (SELECT date_trunc('year', max(business_date)) FROM business_days)
    UNION
    SELECT period FROM periods
) m
LEFT JOIN periods p ON p.period = m.period
WHERE m.period < $1
ORDER BY m.period DESC
LIMIT $2;

-- name: count_vouchers_of_periods
-- How many vouchers months have.
SELECT w.period, coalesce(sum(n.number_last), 0)::bigint AS vouchers
FROM unnest($1::text[], $2::date[], $3::date[]) AS w (period, first_on, last_on)
LEFT JOIN voucher_numbers n ON n.business_date BETWEEN w.first_on AND w.last_on
GROUP BY w.period;

-- name: lock_closed_period
-- A closed period, to be archived by one caller at a time.
SELECT period, state, closed_at, archived_at FROM periods WHERE period = $1 FOR UPDATE;

-- name: mark_archived
-- A period's vouchers were set aside.
UPDATE periods SET state = 'ARCHIVED', archived_at = clock_timestamp()
WHERE period = $1
RETURNING period, state, closed_at, archived_at;

-- name: find_partition
-- The partition of a table that begins with a day; its schema is the session's.
SELECT c.relname AS name
FROM pg_inherits i
JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = $1::text::regclass
  AND pg_get_expr(c.relpartbound, c.oid) LIKE 'FOR VALUES FROM (''' || $2::text || ''')%';

-- name: find_bounds
-- Whether the constraint of a table that says its month was checked; no row where there is none.
SELECT convalidated FROM pg_constraint WHERE conrelid = $1::text::regclass AND conname = $2;
