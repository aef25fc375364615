-- What is asked about one account's entries: a page of them, its balance at an instant, a statement
-- over business days. An account may have millions of entries, so each question is answered from
-- its running sums and from the few entries around its bounds, found by the primary key.
--
-- Along the versions of an account `booked_at` only grows, and so does `business_date`, but for
-- drained credits: these carry the date of their transfer, which may be over when they are drained.

-- name: list_entries
-- A page of an account's entries between two versions and two business days, oldest first.
SELECT e.account_id, e.version, e.transfer_id, e.is_debit, e.amount_minor, e.debits_posted_minor,
       e.credits_posted_minor, e.business_date, e.booked_at, e.appended_at,
       CASE WHEN e.is_debit THEN coalesce(t.redirected_to, t.credit_account_id)
            ELSE t.debit_account_id END AS counter_account_id,
       t.movement, t.reference_id, t.value_on
FROM (
    SELECT book, account_id, version, transfer_id, is_debit, amount_minor, debits_posted_minor,
           credits_posted_minor, business_date, booked_at, appended_at
    FROM entries
    WHERE book = $1 AND account_id = $2 AND version > $3 AND version <= $4
      AND business_date BETWEEN $5 AND $6
    ORDER BY version
    LIMIT $7
) e
JOIN transfers t ON t.book = e.book AND t.id = e.transfer_id
ORDER BY e.version;

-- name: read_sums_until
-- The sums of an account after its last entry that was booked until an instant (null: the last of
-- all), and up to a version. Halves the range of versions until one is left: about 25 look-ups for
-- any account.
WITH RECURSIVE search (low, high) AS (
    SELECT 0::bigint, $3::bigint
    UNION ALL
    SELECT CASE WHEN p.version IS NULL OR $4::timestamptz IS NULL OR p.booked_at <= $4
                THEN s.middle ELSE s.low END,
           CASE WHEN p.version IS NULL OR $4::timestamptz IS NULL OR p.booked_at <= $4
                THEN s.high ELSE p.version - 1 END
    FROM (SELECT low, high, (low + high + 1) / 2 AS middle FROM search WHERE low < high) s
    LEFT JOIN LATERAL (
        SELECT version, booked_at
        FROM entries
        WHERE book = $1 AND account_id = $2 AND version > s.low AND version <= s.middle
        ORDER BY version DESC
        LIMIT 1
    ) p ON true
)
SELECT s.low AS version, coalesce(e.debits_posted_minor, 0) AS debits_minor,
       coalesce(e.credits_posted_minor, 0) AS credits_minor
FROM search s
LEFT JOIN LATERAL (
    SELECT debits_posted_minor, credits_posted_minor
    FROM entries
    WHERE book = $1 AND account_id = $2 AND version <= s.low
    ORDER BY version DESC
    LIMIT 1
) e ON true
WHERE s.low = s.high;

-- name: sum_entries_of_days
-- Entries between two versions whose business date is not after a day.
SELECT count(*) AS entries,
       coalesce(sum(amount_minor) FILTER (WHERE is_debit), 0) AS debits_minor,
       coalesce(sum(amount_minor) FILTER (WHERE NOT is_debit), 0) AS credits_minor,
       coalesce(max(version), 0) AS version
FROM entries
WHERE book = $1 AND account_id = $2 AND version > $3 AND version <= $4 AND business_date <= $5;

-- name: sum_late_credits
-- Credits that were appended until an instant, and drained after a version ($3) and up to another
-- ($4); with a day, only those whose business date is not after it.
--
-- Buffers are drained in the order in which credits were appended, as far as their transactions
-- were over: so one that was drained before $3 says that all those appended longer before it than
-- a transaction lives ($6) were drained before $3, too. What came earlier is not looked at.
-- (`+ 0` leaves the server no index but that of appended credits, which is the short one.)
SELECT count(*) AS entries, coalesce(sum(amount_minor), 0) AS credits_minor,
       coalesce(max(version), 0) AS version
FROM entries
WHERE book = $1 AND account_id = $2 AND version + 0 > $3 AND version + 0 <= $4
  AND appended_at <= $5
  AND appended_at >= coalesce(
      (
          SELECT d.appended_at - $6::interval
          FROM entries d
          WHERE d.book = $1 AND d.account_id = $2 AND d.version + 0 <= $3 AND d.appended_at <= $5
          ORDER BY d.appended_at DESC
          LIMIT 1
      ),
      '-infinity'
  )
  AND ($7::date IS NULL OR business_date <= $7);

-- name: count_entries
-- How many entries there are between two versions; read from the index alone.
SELECT count(*) FROM entries
WHERE book = $1 AND account_id = $2 AND version > $3 AND version <= $4;

-- name: sum_buffered_until
-- Credits of an account that were appended until an instant and wait for the drain.
SELECT coalesce(sum(amount_minor), 0) AS credits_minor
FROM buffered_credits
WHERE book = $1 AND account_id = $2 AND booked_at <= $3;

-- name: read_day_after
-- The first business day of a book after a day: when it began, and the day before it.
SELECT advanced_at, previous_date
FROM business_date_changes
WHERE book = $1 AND business_date > $2
ORDER BY business_date
LIMIT 1;

-- name: wait_for_bookings
-- Waits until no transaction that books on an account is under way; run in one of its own. Both
-- those that hold the account's row and those that only append to its buffer are waited for.
SELECT id FROM accounts WHERE book = $1 AND id = $2 FOR UPDATE;

-- name: list_account_ids
-- A page of the ids of one owner's accounts in one world.
SELECT id FROM accounts
WHERE owner_id = $1 AND tenant_id = $2 AND mode = $3 AND id > $4
ORDER BY id
LIMIT $5;
